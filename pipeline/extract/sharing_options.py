"""Options that share an extraction out: which part of the set this run makes, and whether Ray's actors make it."""

from __future__ import annotations

import os
from dataclasses import replace

import click

from common.cores import usable_processors
from pipeline.extract.devices import devices_of, first_device
from pipeline.extract.local import LocalRunner
from pipeline.extract.parts import Part
from pipeline.extract.ray_runner import RayRunner, on_cluster
from pipeline.extract.runner import Runner
from pipeline.flow.estimator import EstimatorChoice, EstimatorOptions, choose
from pipeline.video.remote_videos import RemoteVideos

LOCAL, RAY = "local", "ray"


def _part(_: click.Context, __: click.Parameter, text: str) -> Part:
    try:
        return Part.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


SHARING_OPTIONS = (
    click.option(
        "--part", default="1/1", callback=_part, metavar="I/N", help="Make every N-th chunk only, from the I-th on."
    ),
    click.option(
        "--runner",
        "where",
        type=click.Choice([LOCAL, RAY]),
        default=LOCAL,
        help="This machine, or the actors of a Ray cluster (RAY_ADDRESS; without it, one on this machine).",
    ),
    click.option("--actors", type=int, help="With --runner ray; default: one per GPU, or as many as there are cores."),
    click.option(
        "--workers",
        type=int,
        show_default="number of cores; with Ray an actor's share beside GPUs, else 1",
        help="Decoding processes, and as many for flow on a CPU or encoding beside GPUs.",
    ),
)


def choice_for(where: str, flow: str, options: EstimatorOptions, device: str, image_size: int) -> EstimatorChoice:
    """The estimator, for the device that it will run on. Raises ValueError, as `choose` does."""
    if where == LOCAL or device == "cpu":
        return choose(flow, replace(options, device=first_device(device)), image_size=image_size)
    if device != "cuda":
        raise ValueError(f"--device is {device!r}; Ray says which GPU an actor gets: give cpu or cuda")
    return on_cluster(choose(flow, replace(options, device="cpu"), image_size=image_size))


def runner_for(
    where: str,
    choice: EstimatorChoice,
    device: str,
    workers: int | None,
    actors: int | None,
    remote: tuple[RemoteVideos, int] | None,
) -> Runner:
    """Checked, nothing started. remote: of videos that are no local files, as `LocalRunner` takes it. Raises ValueError."""
    if where == RAY:
        if remote is not None:
            raise ValueError(
                f"--runner ray reads videos from a folder that every node sees, not from {remote[0].url}: copy them to one, or give each "
                "machine a --part I/N instead, which reads them from there"
            )
        address = os.environ.get("RAY_ADDRESS", "")
        return RayRunner(choice, actors=actors, workers=workers, on_gpus=device != "cpu", address=address)
    if actors is not None:
        raise ValueError(f"--actors is {actors}; it goes with --runner ray")
    return LocalRunner(usable_processors() if workers is None else workers, choice, devices_of(choice, device), remote)

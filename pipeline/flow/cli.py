"""The commands about flow itself: weights, evaluate-flow, flow, compare-precision.

`commands` is a click group; `python -m pipeline` takes its commands over. What they do is in `evaluate.py`,
`draw.py`, `precision.py` and `weights/`; here are options, tables and one-line errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any

import click

from common.command import one_line_errors
from common.download import forget
from common.progress import ProgressDisplay, shown_in_megabytes
from pipeline.flow.draw import IMAGE_SUFFIXES, draw_video, flow_of_images, write_result
from pipeline.flow.estimator import EstimatorChoice, EstimatorOptions, choose
from pipeline.flow.evaluate import PairScore, SetScore, by_set, find_pairs, score_pair
from pipeline.flow.networks.table import NETWORKS
from pipeline.flow.options import named_values
from pipeline.flow.weights.catalogue import KNOWN, KnownWeights, WeightSource, find
from pipeline.flow.weights.listing import listing

_SMALLER = "use smaller frames, or --flow-option batch_pairs=1"
_AGAIN = "free some memory and run the same command again"


@click.group()
def commands() -> None:
    """Flow networks: weights, accuracy, images."""


def estimator_options(command: Callable[..., None]) -> Callable[..., None]:
    """--flow, --weights, --device, --precision, --flow-option; the command receives `choice`, checked and not built."""

    @wraps(command)
    def wrapped(
        flow: str, weights: str | None, device: str, precision: str, flow_option: tuple[str, ...], **kwargs: Any
    ) -> None:
        options = EstimatorOptions(weights, device, precision, named_values(flow_option))
        command(choice=choose(flow, options), **kwargs)

    for option in (
        click.option(
            "--flow-option",
            multiple=True,
            metavar="NAME=VALUE",
            help="An option of the estimator, such as iterations=12.",
        ),
        click.option("--precision", default="fp32", show_default=True, help="fp32, tf32, bf16 or fp16."),
        click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 or auto."),
        click.option("--weights", help="A weights file, a name that `weights` lists, or random:SEED."),
        click.option(
            "--flow", default="dis", show_default=True, help="Estimator: dis, truth, a network, or ptlflow:NAME."
        ),
    ):
        wrapped = option(wrapped)
    return wrapped


@commands.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="A list of objects instead of a table, with URLs and licences.")
@click.pass_context
def weights(context: click.Context, as_json: bool) -> None:
    """List the known weight files; `weights get NAME` fetches one."""
    if context.invoked_subcommand is not None:
        return
    if as_json:
        click.echo(
            json.dumps(
                [{**asdict(entry), "path": str(entry.path), "present": entry.path.is_file()} for entry in KNOWN],
                indent=1,
            )
        )
        return
    click.echo(listing())


@weights.command("get")
@click.argument("names", nargs=-1, required=True)
@one_line_errors(out_of_memory=_AGAIN)
def weights_get(names: tuple[str, ...]) -> None:
    """Fetch weights by name into the cache and check that they load."""
    from pipeline.flow.weights.download import get

    entries = [_entry(name) for name in names]
    for entry in entries:
        fetched_now = not entry.path.is_file()
        with shown_in_megabytes(entry.name) as progress:
            path = get(entry, progress=progress)
        identity = _check_loads(entry, remove_if_not=fetched_now)
        click.echo(f"{entry.name}: {path} {identity}{'' if fetched_now else ' (was here already)'}")


def _entry(name: str) -> KnownWeights:
    if not name.startswith("ptlflow:"):
        return find(name)
    from pipeline.flow.weights import (
        ptlflow_zoo,  # torch and ptlflow take seconds to import, and are needed for its networks only
    )

    return ptlflow_zoo.find(name)


def _check_loads(entry: KnownWeights, remove_if_not: bool) -> str:
    """Identity of the file, which must fit its network. One that was just fetched and does not is removed again."""
    from pipeline.flow.weights import ptlflow_zoo
    from pipeline.flow.weights.checkpoints import fitting_checkpoint

    try:
        if entry.network.startswith(ptlflow_zoo.PREFIX):
            model = entry.network.removeprefix(ptlflow_zoo.PREFIX)
            return ptlflow_zoo.identity(ptlflow_zoo.make(ptlflow_zoo.ModelSpec(model, WeightSource(path=entry.path))))
        return fitting_checkpoint(entry.network, entry.path).identity
    except ValueError:
        if remove_if_not:
            forget(entry.path)
        raise


@weights.command("convert-smurf")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path), required=False)
@one_line_errors(out_of_memory=_AGAIN)
def weights_convert_smurf(checkpoint: Path, out: Path | None) -> None:
    """Turn SMURF's published TensorFlow 2 checkpoint (prefix, .index or directory) into a .pt file. TensorFlow is not needed.

    Without OUT the file goes into the cache as smurf-kitti.pt, which `--flow smurf` takes by default.
    """
    from pipeline.flow.weights.convert_smurf import convert

    target = out or find("smurf-kitti").path
    count = convert(checkpoint, target)
    click.echo(f"{target}: {count} tensors")


@commands.command("evaluate-flow")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory that holds benchmark layouts at any depth.",
)
@click.option("--per-pair", is_flag=True, help="Also list every pair.")
@click.option("--json", "as_json", is_flag=True)
@one_line_errors(out_of_memory=_SMALLER)
@estimator_options
def evaluate_flow(choice: EstimatorChoice, data: Path, per_pair: bool, as_json: bool) -> None:
    """EPE, Fl-all and 1px against ground truth, per set and in total. Exit code 1 if a pair could not be scored."""
    scores: list[PairScore] = []
    skipped: list[str] = []
    pairs = find_pairs(data)
    estimator = choice.build()
    with ProgressDisplay("evaluate", "pairs") as progress:
        progress.begin(len(pairs))
        for pair in pairs:
            try:
                scores.append(score_pair(estimator, pair))
            except ValueError as unusable:
                skipped.append(f"{pair.set_name}, {pair.name}: {unusable}")
            progress.advance(status=f"{len(skipped)} not scored" if skipped else None)
    table = by_set(scores) if scores else []
    if as_json:
        rows = [
            {"set": s.pair.set_name, "pair": s.pair.name, "epe_px": s.epe_px, "non_finite": s.non_finite}
            for s in scores
        ]
        report = {"estimator": choice.name, "settings": dict(choice.statement()), "sets": [asdict(s) for s in table]}
        click.echo(json.dumps({**report, "pairs": rows, "skipped": skipped}, indent=1, allow_nan=False))
    else:
        _print_scores(choice, scores if per_pair else [], table)
    empty = [f"{s.pair.set_name}, {s.pair.name}: no finite flow" for s in scores if s.epe_px is None]
    if not as_json:
        for line in (*skipped, *empty):
            click.echo(f"not scored: {line}", err=True)
    if skipped or empty:
        raise click.ClickException(f"{len(skipped) + len(empty)} of {len(pairs)} pairs could not be scored")


def _print_scores(choice: EstimatorChoice, scores: list[PairScore], table: list[SetScore]) -> None:
    for score in scores:
        click.echo(f"{score.pair.set_name:45s} {score.pair.name:24s} EPE {_px(score.epe_px)} px")
    click.echo(f"{choice.name} {json.dumps(dict(choice.statement()))}")
    click.echo(f"{'set':45s} {'pairs':>6s} {'EPE px':>8s} {'Fl-all %':>9s} {'>1px %':>8s} {'non-finite px':>14s}")
    for line in table:
        rates = f"{line.fl_all_percent:9.2f} {line.over_1px_percent:8.2f}"
        click.echo(f"{line.name:45s} {line.pairs:6d} {_px(line.epe_px)} {rates} {line.non_finite:14d}")


def _px(error_px: float | None) -> str:
    return f"{'-':>8s}" if error_px is None else f"{error_px:8.3f}"


@commands.command("flow")
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="A.jpg B.jpg | VIDEO")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Image, .flo, .pfm or .kitti.png; for a video, a video. Default: A-flow.png or VIDEO-flow.mp4 in the "
    "current directory.",
)
@click.option(
    "--max-px", type=click.FloatRange(min=0, min_open=True), help="Motion drawn fully saturated; default: the longest."
)
@click.option(
    "--max-side",
    "max_side_px",
    default=1024,
    show_default=True,
    type=click.IntRange(128),
    help="Shrink larger frames, px.",
)
@click.option("--max-frames", type=click.IntRange(1), help="Stop after so many pairs of a video.")
@one_line_errors(out_of_memory=_SMALLER)
@estimator_options
def flow_command(
    choice: EstimatorChoice,
    sources: tuple[Path, ...],
    out: Path | None,
    max_px: float | None,
    max_side_px: int,
    max_frames: int | None,
) -> None:
    """Flow from image A to image B, or along a video, drawn with the usual colour wheel.

    `flow A.png B.png` is enough: the estimator is dis, which needs no weights, and the result is A-flow.png.
    """
    if out is not None and out.resolve() in [source.resolve() for source in sources]:
        raise ValueError(f"{out} is what flow is computed of; give --out another name")
    if len(sources) == 2:
        out = out or Path(f"{sources[0].stem}-flow.png")
        flow_chw = flow_of_images(choice.build(), sources[0], sources[1], max_side_px)
        write_result(out, flow_chw, max_px)
        lengths = (flow_chw**2).sum(axis=0) ** 0.5
        click.echo(f"{out}: motion {lengths.mean():.2f} px on average, {lengths.max():.2f} px at most")
    elif len(sources) == 1 and sources[0].suffix.lower() not in IMAGE_SUFFIXES:
        out = out or Path(f"{sources[0].stem}-flow.mp4")
        with ProgressDisplay("flow", "pairs") as progress:
            progress.begin(max_frames)
            done, scale = draw_video(
                choice.build(), sources[0], out,
                max_px=max_px, max_side_px=max_side_px, max_frames=max_frames, progress=progress.update,
            )  # fmt: skip
        click.echo(f"{out}: {done} pairs, {scale:.1f} px drawn fully saturated")
    else:
        raise ValueError(f"give two images or one video, not {len(sources)} sources ({', '.join(map(str, sources))})")


@commands.command("compare-precision")
@click.option("--flow", default="sea-raft-m", show_default=True, type=click.Choice(list(NETWORKS)))
@click.option("--weights", help="As elsewhere; random:SEED measures the arithmetic only.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 or auto.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    help="Which to compare with fp32; default: bf16, and fp16 and tf32 on CUDA.",
)
@click.option(
    "--side",
    "side_px",
    default=224,
    show_default=True,
    type=click.IntRange(121),
    help="Synthetic frames of this side, px.",
)
@click.option("--pair", nargs=2, type=click.Path(path_type=Path), help="Two images instead of synthetic frames.")
@click.option("--compile/--no-compile", "compiled", default=False, help="Also compare torch.compile.")
@click.option("--json", "as_json", is_flag=True)
@one_line_errors(out_of_memory="use a smaller --side")
def compare_precision(
    flow: str, weights: str | None, device: str, precisions: tuple[str, ...], side_px: int, pair: tuple[Path, Path] | None,
    compiled: bool, as_json: bool,
) -> None:  # fmt: skip
    """How far every mode's flow is from float32, in pixels, and how fast it runs."""
    from pipeline.flow.precision import compare

    rows = compare(flow, weights, device, precisions, side_px, pair, compiled)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=1))
        return
    click.echo(f"{flow}, {device}: difference to fp32; mean motion {rows[0].mean_motion_px:.2f} px")
    click.echo(f"{'mode':28s} {'mean EPE px':>12s} {'99 % px':>10s} {'largest px':>11s} {'pairs/s':>9s}")
    for row in rows:
        difference = f"{row.mean_epe_px:12.2e} {row.p99_epe_px:10.2e} {row.max_epe_px:11.2e}"
        click.echo(f"{row.mode:28s} {difference} {row.pairs_per_s:9.2f}")

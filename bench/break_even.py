"""From which epoch on caching flow is cheaper than computing it inside the training loop, extraction included: all in one run.

    python bench/break_even.py --videos DIR --dataset synthetic                          # a CPU: raft-small (random weights) and dis
    python bench/break_even.py --videos DIR --config configs/ytvos.toml --flow sea-raft-m --device cuda encoder.init=random

Three rates with one estimator, one config, one batch size, in one process: extraction (decode, flow to all K neighbours, encode,
write), a cached training step (read, decode, update), and the same step with flow inside the loop (`online_pairs.py`: decode, flow
to the one neighbour that is trained on, update). With V videos an epoch is V samples, and extraction makes V x passes anchors:

    break-even epoch = passes * t_extract / (t_online - t_cached)        t in seconds per anchor or sample

On a CPU t is CPU time of this process and its children, so that other work on the machine does not count and overlap is no gain;
on an accelerator it is wall-clock time. Start-up is left out everywhere. Weights are random: speed does not depend on them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import click
import psutil
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.online_trainer import OnlineSource
from bench.record import record
from common.command import one_line_errors
from common.freed_memory import OF_A_STEP, keep_freed_memory
from pipeline.extract.run import ExtractionRequest, extract, stated
from pipeline.extract.runner import ChunkJob, Event
from pipeline.extract.stages import run_job
from pipeline.flow.estimator import EstimatorChoice, EstimatorOptions, FlowEstimator, choose
from pipeline.flow.networks.table import NETWORKS
from pipeline.video.datasets import DATASETS, Video, list_videos
from pipeline.video.decoder import Decoder
from shards.reader import ShardSet
from shards.schema import Settings
from trainer.batch import Plan
from trainer.config import Config, load_config
from trainer.device import training_device
from trainer.distributed import Place
from trainer.feed import on_device
from trainer.learner import Learner, check_sizes
from trainer.loader import Loader
from trainer.training_samples import sample_order
from trainer.views import Pixels, Views, cut_views, draw_boxes

Clock = Callable[[], float]


@dataclass(frozen=True)
class BreakEven:
    """Seconds by `clock` ("CPU" or "wall"): extract_s per anchor with all its neighbours, cached_s and online_s per sample."""

    flow: str
    clock: str
    extract_s: float
    neighbours: int
    cached_s: float
    online_s: float

    @property
    def speed_up(self) -> float:
        """How many times as many samples a cached step does in the same time."""
        return self.online_s / self.cached_s

    def epoch(self, passes: int) -> float:
        """The epoch from which a set of so many passes has paid for itself; infinite where flow costs a step nothing."""
        saved = self.online_s - self.cached_s
        return passes * self.extract_s / saved if saved > 0 else float("inf")


def break_even(
    config: Config,
    videos: Sequence[Video],
    flows: Sequence[EstimatorChoice],
    *,
    steps: int,
    warmup: int = 1,
    image_size: int = 448,
    flow_size: int = 224,
) -> list[BreakEven]:
    """Measure every estimator on these videos. config: of the training; its data.shards is not used.

    The set is one pass of the videos, with frames and flow of these sizes in px.

    Raises ValueError for sizes that do not fit, ExtractionError for videos that cannot be decoded.
    """
    device = training_device(config, Place())
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    if device.type == "cpu":
        keep_freed_memory(OF_A_STEP)
    clock = _cpu_seconds if device.type == "cpu" else time.perf_counter
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        extracted = []
        for flow in flows:
            out = Path(scratch) / flow.name
            settings = Settings(
                "list", stated(flow), image_size=image_size, flow_size=flow_size, chunk_videos=len(videos)
            )
            extracted.append((out, settings, flow, _extraction(videos, settings, flow, out, clock)))
        cached = _cached_step(config, extracted[0][0], steps, warmup, clock)
        for _, settings, flow, extract_s in extracted:
            online = _online_step(config, OnlineSource(tuple(videos), settings, flow), steps, warmup, clock)
            name = "CPU" if device.type == "cpu" else "wall"
            results.append(BreakEven(flow.name, name, extract_s, len(settings.offsets), cached, online))
    return results


# --- extraction -----------------------------------------------------------------------------------------------------


class TimedRunner:
    """A runner in this process: what it takes besides building the estimator is `seconds`."""

    def __init__(self, choice: EstimatorChoice, clock: Clock) -> None:
        self.choice, self.clock, self.seconds = choice, clock, 0.0
        self.estimator: FlowEstimator | None = None
        self.decoder = Decoder()

    def __enter__(self) -> TimedRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.decoder.close()

    def prepare(self, jobs: int) -> None:
        self.estimator = self.estimator or self.choice.build()

    def run(self, jobs: Sequence[ChunkJob], on_event: Callable[[Event], None]) -> None:
        assert self.estimator is not None, "prepare comes first"
        began = self.clock()
        for job in jobs:
            on_event(run_job(job, self.decoder, self.estimator, on_event))
        self.seconds = self.clock() - began  # before the decoder's process ends, whose time counts


def _extraction(videos: Sequence[Video], settings: Settings, flow: EstimatorChoice, out: Path, clock: Clock) -> float:
    """Seconds per anchor of extracting one pass."""
    listed = out.with_suffix(".txt")
    listed.write_text("".join(f"{video.path.resolve()}\n" for video in videos))
    request = ExtractionRequest(listed, out, settings, flow, passes=1)
    runner = TimedRunner(flow, clock)
    manifest = extract(request, runner, lambda event, tally: None, lambda plan, tally: None)
    return runner.seconds / int(manifest.counts["samples"])


# --- training steps -------------------------------------------------------------------------------------------------


def _cached_step(config: Config, root: Path, steps: int, warmup: int, clock: Clock) -> float:
    """Seconds per sample of training from shards. The loader's workers are forked before the device is used."""
    shards = ShardSet(root)
    stored = shards.manifest.settings
    plan = Plan(sample_order(shards, config), config.train.batch_size, stored.image_size, stored.flow_size)
    with Loader(shards, plan, workers=config.data.workers, prefetch_batches=config.data.prefetch_batches) as loader:
        learner = Learner(config, training_device(config, Place()))
        source = check_sizes(learner.model, config, stored.image_size)
        batches = ((batch.host.positions, batch.pixels) for batch in on_device(loader, learner.device))
        views = (_views(config, source, *batch) for batch in batches)
        with closing(views):
            return _per_sample(learner, views, steps, warmup, clock)


def _online_step(config: Config, source: OnlineSource, steps: int, warmup: int, clock: Clock) -> float:
    """Seconds per sample of training with flow inside the loop."""
    learner = Learner(config, training_device(config, Place()))
    source_size = check_sizes(learner.model, config, source.settings.image_size)
    with source.pairs(config, learner.device) as pairs:
        views = (_views(config, source_size, batch.positions, batch.pixels) for batch in pairs.batches())
        return _per_sample(learner, views, steps, warmup, clock)


def _views(config: Config, source_size: int, positions: object, pixels: Pixels) -> Views:
    boxes = draw_boxes(config.train.seed, positions, config.views.crop_scale, source_size)  # type: ignore[arg-type]
    return cut_views(pixels, boxes, view_size=config.views.image_size, source_size=source_size)


def _per_sample(learner: Learner, views: Iterator[Views], steps: int, warmup: int, clock: Clock) -> float:
    for _ in range(warmup):
        learner.learn(next(views))
    _wait(learner.device)
    began = clock()
    for _ in range(steps):
        learner.learn(next(views))
    _wait(learner.device)
    return (clock() - began) / (steps * learner.config.train.batch_size)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _cpu_seconds() -> float:
    """CPU time so far of this process and all that it has started and that still live."""
    own = psutil.Process()
    spent = [own.cpu_times(), *(child.cpu_times() for child in own.children(recursive=True))]
    return sum(float(times.user + times.system) for times in spent)


# --- the command ----------------------------------------------------------------------------------------------------


def record_rows(result: BreakEven, config: Config, passes: int, *, device: str | None = None) -> None:
    """The rows of one estimator. device: name of the accelerator, where one was used."""
    size, batch = config.views.image_size, config.train.batch_size
    note = f"{config.encoder.variant} at {size}, batch {batch}, {result.clock} time, start-up left out"
    pairs = result.neighbours / result.extract_s
    rows: tuple[tuple[str, float, str, str], ...] = (
        (
            "extraction_pairs_per_s",
            pairs,
            "1/s",
            f"{result.neighbours} pairs per anchor, decoding and encoding included",
        ),
        ("cached_samples_per_s", 1 / result.cached_s, "1/s", "from shards"),
        ("online_samples_per_s", 1 / result.online_s, "1/s", "decoding and one pair of flow per sample in the loop"),
        ("cached_over_online", result.speed_up, "x", ""),
        ("break_even_epoch", result.epoch(passes), "epochs", f"of one pair per video, a set of {passes} passes"),
        ("break_even_epoch_per_pass", result.epoch(1), "epochs", "for every pass in the set"),
    )
    for figure, value, unit, remark in rows:
        record(
            "break_even", f"{result.flow}_{figure}", value, unit, f"{remark}; {note}".removeprefix("; "), device=device
        )


@click.command(context_settings={"show_default": True})
@click.option("--videos", type=click.Path(path_type=Path), required=True, help="Root of the videos.")
@click.option("--dataset", default="folder", type=click.Choice(DATASETS), help="Layout of the videos.")
@click.option("--count", default=16, type=click.IntRange(min=1), help="So many videos are used.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), default=Path("configs/demo.toml"))
@click.option("--flow", "flows", multiple=True, default=("raft-small", "dis"), help="Flow estimators.")
@click.option("--device", default="cpu", help="Where flow networks and training run.")
@click.option("--precision", default="fp32", help="Of flow networks.")
@click.option("--passes", default=8, type=click.IntRange(min=1), help="Passes of the set whose break-even is told.")
@click.option("--steps", default=6, type=click.IntRange(min=1), help="Steps that are timed.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@one_line_errors(out_of_memory="use a smaller train.batch_size")
def main(
    videos: Path,
    dataset: str,
    count: int,
    config_file: Path,
    flows: tuple[str, ...],
    device: str,
    precision: str,
    passes: int,
    steps: int,
    overrides: tuple[str, ...],
) -> None:
    """Measure, print and record."""
    config = load_config(config_file, [f"train.device={device}", *overrides])
    found = list_videos(dataset, videos)[:count]
    networks = EstimatorOptions("random:0", device, precision)
    choices = [choose(flow, networks if flow in NETWORKS else EstimatorOptions()) for flow in flows]
    name = torch.cuda.get_device_name() if device.startswith("cuda") else None
    for result in break_even(config, found, choices, steps=steps):
        record_rows(result, config, passes, device=name)


if __name__ == "__main__":
    main()

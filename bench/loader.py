"""Samples per second out of a shard set, without training: our loader beside webdataset's pipelines and the official loader's work.

    python bench/loader.py --shards DIR --frames DIR

All run in turns in this process, several rounds, with batches of 32 and the same number of worker processes; medians are recorded. Since
machines are shared, each rate is also given per second of CPU time (of this process and its workers), and ratios are of those.

    ours         a 448 RGB frame and one 224 flow, in shuffled order over the whole set, decoded into shared memory
    webdataset   the same out of the same tars with its usual pipeline: shard shuffle, `rgb8` (PIL), WebLoader
    minimal      the least that webdataset can do: tars in order, our own decoders, batches stacked by hand, WebLoader for the workers
    official     what the official code does per sample, but for the flow: two full frames decoded, resized, cropped (`official_loader`)
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import psutil
import torch
import webdataset as wds

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.official_loader import enlarged_copy, official_batches
from bench.record import record
from shards.codec import decode_flow
from shards.reader import ShardSet
from shards.sample import decode_image
from trainer.batch import Plan
from trainer.loader import Loader
from trainer.order import SampleOrder

BATCH = 32
WARMUP = 1
FLOWS = ("p1.flow", "m1.flow", "p2.flow", "m2.flow")


class Rate(NamedTuple):
    """Samples per second of wall time and of CPU time."""

    per_s: float
    per_cpu_s: float


Batches = Callable[[int], Any]
"""Number of workers → context manager that gives an endless iterator of batches."""


@contextmanager
def ours(data: ShardSet, workers: int) -> Iterator[Iterable[Any]]:
    settings = data.manifest.settings
    plan = Plan(SampleOrder(data.trainable_mask, seed=0), BATCH, settings.image_size, settings.flow_size)
    with Loader(data, plan, workers=workers, prefetch_batches=4) as loader:
        yield loader.batches()


def _tars(data: ShardSet) -> list[str]:
    return [str(data.root / shard) for shard in data.shards]


@contextmanager
def webdataset(data: ShardSet, workers: int) -> Iterator[Iterable[Any]]:
    def pick(sample: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, float]:
        flow = decode_flow(sample[next(name for name in FLOWS if name in sample)])
        return sample["jpg"], flow.values_chw, flow.quantum_px

    source = wds.WebDataset(_tars(data), shardshuffle=100, seed=0, empty_check=False).decode("rgb8").map(pick).repeat()
    source = source.batched(BATCH, partial=False)
    with _closing_workers(iter(wds.WebLoader(source, batch_size=None, num_workers=workers))) as batches:
        yield batches


@contextmanager
def minimal(data: ShardSet, workers: int) -> Iterator[Iterable[Any]]:
    side = data.manifest.settings.image_size

    def stacked(samples: Iterable[dict[str, Any]]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        images, flows, quanta = [], [], []
        for sample in samples:
            flow = decode_flow(sample[next(name for name in FLOWS if name in sample)])
            images.append(decode_image(sample["jpg"], side))
            flows.append(flow.values_chw)
            quanta.append(flow.quantum_px)
            if len(images) == BATCH:
                yield np.stack(images), np.stack(flows), np.array(quanta, np.float32)
                images, flows, quanta = [], [], []

    source = wds.WebDataset(_tars(data), shardshuffle=False, empty_check=False).repeat().compose(stacked)
    with _closing_workers(iter(wds.WebLoader(source, batch_size=None, num_workers=workers))) as batches:
        yield batches


@contextmanager
def official(frames: Path, workers: int) -> Iterator[Iterable[Any]]:
    with _closing_workers(iter(official_batches(frames, BATCH, workers))) as batches:
        yield batches


@contextmanager
def _closing_workers(batches: Any) -> Iterator[Any]:
    """torch ends its workers when the iterator goes; here it must be now, before the next one is measured."""
    try:
        yield batches
    finally:
        shut = getattr(batches, "_shutdown_workers", None)
        if shut is not None:
            shut()


def cpu_s() -> float:
    """CPU time of this process and of its workers that are alive."""
    me = psutil.Process()
    times = [p.cpu_times() for p in (me, *me.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def settled() -> float:
    """Wait until all workers have been asleep for a tenth of a second: what they prefetch is ready. Returns when they fell asleep."""
    asleep, since = 0, time.perf_counter()
    while asleep < 10:
        states = {p.status() for p in psutil.Process().children(recursive=True)}
        if states <= {psutil.STATUS_SLEEPING, psutil.STATUS_ZOMBIE}:
            since = since if asleep else time.perf_counter()
            asleep += 1
        else:
            asleep = 0
        time.sleep(0.01)
    return since


def measured(start: Batches, workers: int, seconds: float) -> Rate:
    """The rate over at least `seconds` and four batches. With all that is prefetched ready at both ends, as many batches are made
    in between as are taken, and all CPU time in between is theirs."""
    with start(workers) as batches:
        batches = iter(batches)
        for _ in range(WARMUP):
            next(batches)
        settled()
        began, cpu, count = time.perf_counter(), cpu_s(), 0
        while count < 4 or time.perf_counter() - began < seconds:
            next(batches)
            count += 1
        ended = settled()
        return Rate(count * BATCH / (ended - began), count * BATCH / (cpu_s() - cpu))


def compared(contestants: dict[str, Batches], workers: int, seconds: float, rounds: int) -> dict[str, Rate]:
    """Medians over rounds in which each runs once."""
    found: dict[str, list[Rate]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, start in contestants.items():
            found[name].append(measured(start, workers, seconds))
    return {
        name: Rate(*(statistics.median(column) for column in zip(*rates, strict=True))) for name, rates in found.items()
    }


def decoding_rate(data: ShardSet, batches: int = 20) -> float:
    """Samples per second of one core: this thread's CPU time, everything in this process; best of seven."""
    best = 0.0
    with ours(data, 0) as source:
        batched = iter(source)
        for _ in range(7):
            began = time.thread_time()
            for _ in range(batches):
                next(batched)
            best = max(best, batches * BATCH / (time.thread_time() - began))
    return best


@click.command()
@click.option("--shards", "root", type=click.Path(exists=True, path_type=Path), required=True, help="A set at 448/224.")
@click.option(
    "--frames", type=click.Path(exists=True, path_type=Path), help="Folders of video frames, as DAVIS has them."
)
@click.option("--workers", "counts", multiple=True, default=(1, 2), show_default=True)
@click.option("--seconds", default=4.0, show_default=True, help="Each contestant, each round.")
@click.option("--rounds", default=3, show_default=True)
def main(root: Path, frames: Path | None, counts: tuple[int, ...], seconds: float, rounds: int) -> None:
    torch.set_num_threads(1)
    data = ShardSet(root)
    with tempfile.TemporaryDirectory() as scratch:
        contestants: dict[str, Batches] = {
            "flowfeat": lambda workers: ours(data, workers),
            "webdataset": lambda workers: webdataset(data, workers),
            "webdataset_minimal": lambda workers: minimal(data, workers),
        }
        if frames is not None:
            large = enlarged_copy(frames, Path(scratch) / "720", 720)
            contestants["official_480p"] = lambda workers: official(frames, workers)
            contestants["official_720p"] = lambda workers: official(large, workers)
        size = sum(info.bytes for info in data.manifest.shards) / len(data) / 1024
        about = f"batch {BATCH}, {size:.0f} KiB per sample in the set"
        record(
            "loader", "flowfeat_samples_per_core_s", decoding_rate(data), "1/s", f"{about}; thread CPU time, best of 7"
        )
        for workers in counts:
            rates = compared(contestants, workers, seconds, rounds)
            note = f"{about}, {workers} workers, median of {rounds} rounds"
            for name, rate in rates.items():
                record("loader", f"{name}_samples_per_s_w{workers}", rate.per_s, "1/s", note)
                record("loader", f"{name}_samples_per_cpu_s_w{workers}", rate.per_cpu_s, "1/s", note)
            for name in list(rates)[1:]:
                ratio = rates["flowfeat"].per_cpu_s / rates[name].per_cpu_s
                record("loader", f"flowfeat_over_{name}_w{workers}", ratio, "x", f"{note}; CPU time")


if __name__ == "__main__":
    main()

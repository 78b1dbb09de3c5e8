"""Running out of memory for real: flow batches are halved and the flow stays the same; a training says what to change and then fits.
What features of large pictures take is set against what is said that they take.

The process is given less memory than the work takes (`torch.cuda.set_per_process_memory_fraction`; on a CPU the address space of
setrlimit), so that the allocator itself fails in the middle of the work. Ends with an error if a batch was not halved, if the flow
differs by more than rounding, or if the smaller training does not fit.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.flow import windows_of
from bench.flow_peak_memory import peak_bytes
from bench.record import record
from bench.train_step import resident_views
from common.command import PlainError, one_line_errors
from common.device import pick_device
from common.memory import is_out_of_memory
from pipeline.flow.batching import PairEstimator
from pipeline.flow.estimator import EstimatorOptions, create
from trainer import FlowFeat
from trainer.config import load_config
from trainer.learner import Learner
from trainer.tiling import choose_tiles, extraction_bytes

SHARE = 0.4
"""Of what the work takes together. On CUDA that is less than half, so that one halving is not enough."""

MOST_DIFFERENCE_PX = 0.05
"""Between batches of different sizes: kernels are chosen by shape, and random weights let differences grow."""


@contextmanager
def at_most(more_bytes: int, device: torch.device) -> Iterator[None]:
    """Inside, this process can take so much more than it holds now."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        allowed = torch.cuda.memory_reserved(device) + more_bytes
        number = torch.cuda.current_device() if device.index is None else device.index  # torch wants it named here
        torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.mem_get_info(number)[1], number)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, number)
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + more_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def hand_back_freed_memory() -> None:
    """Have glibc map every block above 1 MiB by itself: what it kept of an earlier run would be memory that no limit knows."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        mmap_threshold = -3  # M_MMAP_THRESHOLD of <malloc.h>
        libc.mallopt(mmap_threshold, 1 << 20)


def halved_flow(network: str, pairs: int, side_px: int, device: torch.device, gpu: str | None) -> None:
    """A batch that does not fit is halved until it does, and gives what it gave with memory enough."""
    extra = {"batch_pairs": str(pairs), "confidence": "none"}
    estimator = create(network, EstimatorOptions("random:0", str(device), "fp32", extra=extra))
    assert isinstance(estimator, PairEstimator)
    windows = windows_of(pairs, side_px)
    estimator.estimate(windows[:1])  # libraries are loaded outside of the limit
    whole = estimator.estimate(windows)
    few = windows if device.type == "cuda" else windows[: len(windows) // 4]  # counting is slow on a CPU
    needed = len(windows) // len(few) * peak_bytes(lambda: estimator.estimate(few), device)
    assert estimator.halvings == 0, "memory must be enough at first"
    with at_most(int(SHARE * needed), device):
        halved = estimator.estimate(windows)
    difference = max(float(np.abs(a.flow_kchw - b.flow_kchw).max()) for a, b in zip(whole, halved, strict=True))
    note = f"{pairs} pairs at {side_px} px in {SHARE:.0%} of the {needed / 2**30:.2f} GiB that they take together"
    record("memory", f"{network}_halvings", estimator.halvings, "", f"{note}; {estimator.batch_pairs} fit", device=gpu)
    record(
        "memory", f"{network}_halved_difference", difference, "px", "most, to the flow with memory enough", device=gpu
    )
    if not estimator.halvings:
        raise PlainError(f"{network}: {note} were not halved")
    if not difference <= MOST_DIFFERENCE_PX:
        raise PlainError(f"{network}: halved batches differ by {difference:.3g} px, more than {MOST_DIFFERENCE_PX}")


def training_in_parts(settings: list[str], device: torch.device, gpu: str | None) -> None:
    """A step that does not fit ends in an error known as lack of memory; in eight parts (train.accumulate) the same step fits."""

    def step_of(accumulate: int) -> Callable[[], dict[str, float]]:
        config = load_config(None, [*settings, f"train.device={device}", f"train.accumulate={accumulate}"])
        learner = Learner(config, device)
        views = next(resident_views(config, learner))
        learner.learn(views)
        return lambda: learner.learn(views).numbers()

    whole, parts = step_of(1), step_of(8)
    needed = peak_bytes(whole, device)
    refused = False
    with at_most(int(0.6 * needed), device):
        try:
            whole()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            refused = True
        if device.type == "cuda":
            torch.cuda.empty_cache()
        parts()
    record("memory", "training_step", needed / 2**20, "MiB", "one part; the limit was 60 % of it", device=gpu)
    record(
        "memory", "training_step_in_8_parts", peak_bytes(parts, device) / 2**20, "MiB", "fitted the limit", device=gpu
    )
    if not refused:
        raise PlainError(f"a training step of {needed / 2**20:.0f} MiB ran in 60 % of it")


def features_memory(variant: str, h: int, w: int, tile_px: int, device: torch.device, gpu: str | None) -> None:
    """What features of a large picture take, plain and in tiles, over what `trainer.tiling` says that they take at most."""
    model = FlowFeat.create(variant, init="random").eval().to(device)
    images = torch.zeros(1, 3, h, w, device=device)
    for name, tile in (("plain", None), ("tiled", tile_px)):

        def run(tile: int | None = tile) -> object:
            return model.extract(images, tile=tile, normalised=True)

        run()  # what libraries keep from the first call on
        tiles = choose_tiles(model, (1, h, w), tile=tile, overlap=None, memory=None, resized=False)
        stated = extraction_bytes(model, (1, h, w), tiles)
        note = f"{variant}, {h}x{w} px, tile {tile or 'none'}; {stated / 2**20:.0f} MiB are stated"
        record("memory", f"features_{name}_over_stated", peak_bytes(run, device) / stated, "ratio", note, device=gpu)


@click.command(context_settings={"show_default": True})
@click.option("--device", default="auto")
@click.option("--small", is_flag=True)
@one_line_errors(out_of_memory="the limit leaves too little for a single pair")
def main(device: str, small: bool) -> None:
    """Flow, features, training."""
    chosen = pick_device(device)
    if chosen.type == "cpu":
        torch.set_num_threads(1)
        hand_back_freed_memory()
    gpu = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else None
    halved_flow("raft-small" if small else "sea-raft-m", 16 if small else 64, 128 if small else 224, chosen, gpu)
    features_memory(*(("tiny_dino8", 256, 384, 128) if small else ("dinov2_vits14", 1008, 2044, 448)), chosen, gpu)
    if chosen.type == "cuda":  # on a CPU libraries end the process, or wait, where memory lacks in the backward pass
        size = ("tiny_dino8", 32, 64) if small else ("dinov2_vits14", 224, 64)
        settings = [f"encoder.variant={size[0]}", "encoder.init=random", f"views.image_size={size[1]}"]
        training_in_parts([*settings, f"train.batch_size={size[2]}", "train.precision=bf16"], chosen, gpu)


if __name__ == "__main__":
    main()

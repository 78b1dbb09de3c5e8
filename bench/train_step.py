"""Samples per second of a training step: batches already on the device, and from a shard set through the loader.

    python bench/train_step.py                                             # the paper's size: DINOv2-S14, 224, batch 128
    python bench/train_step.py --variant demo_vit8 --size 128 --batch 8 --shards data/shards/demo

Prints one JSON object per row: what was run, the rate, milliseconds per step, peak memory, and for rows from shards the
share of time spent waiting for data. Weights are random: speed does not depend on them. The rows of one call share a
machine and a process, so their ratios mean more than their absolute values.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record
from common.device import pick_device
from shards.reader import ShardSet
from trainer.batch import Plan
from trainer.config import Config, load_config
from trainer.device import keep_freed_memory
from trainer.feed import on_device
from trainer.learner import Learner, check_sizes
from trainer.loader import Loader
from trainer.order import SampleOrder
from trainer.run_log import peak_memory_mb
from trainer.views import Pixels, Views, cut_views, draw_boxes

STORED, STORED_FLOW = 448, 224


def resident_views(config: Config, learner: Learner) -> Iterator[Views]:
    """Endless views cut from one random batch that lies on the device as it would come from the loader."""
    device, b = learner.device, config.train.batch_size
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (b, STORED, STORED, 3), dtype=torch.uint8, generator=draw).to(device)
    flow = torch.randint(-400, 400, (b, 2, STORED_FLOW, STORED_FLOW), dtype=torch.int16, generator=draw).to(device)
    quantum = torch.full((b,), 1 / 32, device=device)
    source = check_sizes(learner.model, config, STORED)
    step = 0
    while True:
        boxes = draw_boxes(0, np.arange(b) + step * b, config.views.crop_scale, source)
        pixels = Pixels(images, flow, quantum)
        yield cut_views(pixels, boxes, view_size=config.views.image_size, source_size=source)
        step += 1


def timed(
    learner: Learner, views: Iterator[Views], steps: int, warmup: int, wait_s: Callable[[], float]
) -> dict[str, Any]:
    """Rate over `steps` steps after `warmup`; every step ends by reading its losses, so the device is idle at both ends."""
    for _ in range(warmup):
        learner.learn(next(views))
    if learner.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(learner.device)
    waited, started, cpu = wait_s(), time.perf_counter(), os.times()
    for _ in range(steps):
        learner.learn(next(views))
    elapsed = time.perf_counter() - started
    batch = learner.config.train.batch_size
    row = {"samples_per_s": round(steps * batch / elapsed, 2), "ms_per_step": round(1000 * elapsed / steps, 2)}
    spent = os.times()
    row["cpu_ms_per_step"] = round(1000 * (spent.user - cpu.user + spent.system - cpu.system) / steps, 1)
    row["system_ms_per_step"] = round(1000 * (spent.system - cpu.system) / steps, 1)
    row["data_wait_share"] = round((wait_s() - waited) / elapsed, 4)
    if learner.device.type == "cuda":
        row["peak_device_memory_mb"] = round(torch.cuda.max_memory_allocated(learner.device) / 2**20, 1)
    return row | {"peak_memory_mb": peak_memory_mb()}


def from_shards(config: Config, root: Path, steps: int, warmup: int) -> dict[str, Any]:
    """The same step with batches read, decoded and copied as in training. Workers are forked before the device is used."""
    shards = ShardSet(root)
    stored = shards.manifest.settings
    plan = Plan(
        SampleOrder(shards.trainable_mask, seed=0), config.train.batch_size, stored.image_size, stored.flow_size
    )
    with Loader(shards, plan, workers=config.data.workers, prefetch_batches=config.data.prefetch_batches) as loader:
        learner = Learner(config, pick_device(config.train.device))
        source = check_sizes(learner.model, config, stored.image_size)

        def views() -> Generator[Views, None, None]:
            for batch in on_device(loader, learner.device):
                boxes = draw_boxes(0, batch.host.positions, config.views.crop_scale, source)
                yield cut_views(batch.pixels, boxes, view_size=config.views.image_size, source_size=source)

        stream = views()
        row = timed(learner, stream, steps, warmup, lambda: loader.wait_s)
        stream.close()
        return row | {"samples_in_set": len(plan.order), "workers": config.data.workers}


@click.command(context_settings={"show_default": True})
@click.option("--variant", default="dinov2_vits14")
@click.option("--size", default=224, help="Side of a view, pixels.")
@click.option("--batch", default=128)
@click.option("--accumulate", default=1)
@click.option("--device", default="auto")
@click.option("--precision", "precisions", multiple=True, default=("fp32", "bf16"), help="Repeatable.")
@click.option("--compile", "compiled", is_flag=True, help="Through torch.compile.")
@click.option("--shards", type=click.Path(path_type=Path, exists=True), help="Also measure from this set.")
@click.option("--workers", default=min(8, os.cpu_count() or 1), help="Loader processes.")
@click.option("--steps", default=20)
@click.option("--warmup", default=5)
@click.option("--threads", default=0, help="CPU threads of torch; 0: its default.")
@click.option("--return-memory", is_flag=True, help="CPU: let glibc hand freed memory back, which training does not.")
def main(
    variant: str,
    size: int,
    batch: int,
    accumulate: int,
    device: str,
    precisions: tuple[str, ...],
    compiled: bool,
    shards: Path | None,
    workers: int,
    steps: int,
    warmup: int,
    threads: int,
    return_memory: bool,
) -> None:
    """Rates of the training step."""
    if pick_device(device).type == "cpu" and not return_memory:
        keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    base = load_config(
        None,
        [
            *(f"encoder.variant={variant}", "encoder.init=random", f"views.image_size={size}"),
            *(f"train.batch_size={batch}", f"train.accumulate={accumulate}", f"train.device={device}"),
            *(f"train.compile={str(compiled).lower()}", f"data.workers={workers}"),
        ],
    )
    for precision in precisions:
        if precision != "fp32" and pick_device(device).type != "cuda":
            continue
        config = replace(base, train=replace(base.train, precision=precision))  # type: ignore[arg-type]
        rows: list[tuple[str, Callable[[Config], dict[str, Any]]]] = []
        if shards:
            rows.append((str(shards), lambda c: from_shards(c, Path(str(shards)), steps, warmup)))
        rows.append(("resident", lambda c: resident(c, steps, warmup)))
        for source, measure in rows:
            what = {"variant": variant, "size": size, "batch": batch, "accumulate": accumulate, "precision": precision}
            what |= {"compile": compiled, "batches": source, "device": device_name(pick_device(device))}
            row = measure(config)
            print(json.dumps({"bench": "train_step", **what, **row}), flush=True)
            kind = ("compiled_" if compiled else "") + ("resident" if source == "resident" else "shards")
            figure = f"{variant}_{size}_b{batch}_{precision}_{kind}"
            if return_memory:
                figure += "_returning_memory"
            gpu = torch.cuda.get_device_name() if pick_device(device).type == "cuda" else None
            note = f"{row['ms_per_step']} ms/step, waiting {100 * row['data_wait_share']:.1f} %"
            record("train_step", f"{figure}_samples_per_s", row["samples_per_s"], "1/s", note, device=gpu)
            if gpu is None:  # what clearing memory costs; other load on the machine moves it much less than the rate
                note = f"system time of this process, beside {row['cpu_ms_per_step']} ms of CPU time in all"
                record("train_step", f"{figure}_system_ms_per_step", row["system_ms_per_step"], "ms", note)


def resident(config: Config, steps: int, warmup: int) -> dict[str, Any]:
    """The step alone."""
    learner = Learner(config, pick_device(config.train.device))
    return timed(learner, resident_views(config, learner), steps, warmup, lambda: 0.0)


def device_name(device: torch.device) -> str:
    """What the row was measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"


if __name__ == "__main__":
    main()

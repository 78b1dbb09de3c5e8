"""A training step: samples per second, where the time goes, and how near it comes to the device's own rate.

    python bench/train_step.py                                             # the paper's size: DINOv2-S14, 224, batch 128
    python bench/train_step.py --variant demo_vit8 --size 128 --batch 8 --shards data/shards/demo

Batches lie on the device already ("resident"), or come from a shard set through the loader. Prints one JSON object per row: what
was run, the rate, milliseconds per step, peak memory, the share of time spent waiting for data; then a table of the step's parts.
Weights are random: speed does not depend on them. The rows of one call share a machine and a process, so their ratios mean more
than their absolute values: that of a host that reads its losses after every step to one that reads them at the end (on CUDA), of
bf16 to fp32, and with --compile of the compiled step to the eager one, with the largest difference between their numbers.

On one CPU thread (--threads 1) rates and parts are per second of CPU time, which other load on the machine hardly moves; ms_per_step is
always the wall clock's.

Other benches call `rate_row` and `parts_row` with a config of their own.
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
from bench.step_parts import PARTS, clock, flop_per_sample, matmul_flop_per_s, parts_ms, wait_for
from common.device import pick_device
from common.freed_memory import OF_A_STEP, keep_freed_memory
from shards.reader import ShardSet
from trainer.batch import Plan
from trainer.config import Config, load_config
from trainer.device import has_bf16
from trainer.feed import DataWait, on_device
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
    learner: Learner,
    views: Iterator[Views],
    steps: int,
    warmup: int,
    wait_s: Callable[[], float],
    wait_every_step: bool = False,
) -> dict[str, Any]:
    """Rate over `steps` steps after `warmup`; the device is idle at both ends."""
    for _ in range(warmup):
        learner.learn(next(views)).numbers()
    if learner.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(learner.device)
    wait_for(learner.device)
    now = clock(learner.device)
    waited, started, measured, cpu = wait_s(), time.perf_counter(), now(), os.times()
    for _ in range(steps):
        update = learner.learn(next(views))
        if wait_every_step:
            update.numbers()
    wait_for(learner.device)
    elapsed, counted = time.perf_counter() - started, now() - measured
    batch = learner.config.train.batch_size
    row = {"samples_per_s": round(steps * batch / counted, 2), "ms_per_step": round(1000 * elapsed / steps, 2)}
    spent = os.times()
    row["cpu_ms_per_step"] = round(1000 * (spent.user - cpu.user + spent.system - cpu.system) / steps, 1)
    row["system_ms_per_step"] = round(1000 * (spent.system - cpu.system) / steps, 1)
    row["data_wait_share"] = round((wait_s() - waited) / elapsed, 4)
    if learner.device.type == "cuda":
        row["peak_device_memory_mb"] = round(torch.cuda.max_memory_allocated(learner.device) / 2**20, 1)
    return row | {"peak_memory_mb": peak_memory_mb()}


def rate_row(
    config: Config, steps: int, warmup: int, shards: Path | None = None, wait_every_step: bool = False
) -> dict[str, Any]:
    """The step's rate with batches that lie on the device, or with batches that are read, decoded and copied as in training."""
    device = pick_device(config.train.device)
    if shards is None:
        learner = Learner(config, device)
        return timed(learner, resident_views(config, learner), steps, warmup, lambda: 0.0, wait_every_step)
    held = ShardSet(shards)
    stored, order = held.manifest.settings, SampleOrder(held.trainable_mask, seed=0)
    plan = Plan(order, config.train.batch_size, stored.image_size, stored.flow_size)
    # workers are forked before the device is used
    with Loader(held, plan, workers=config.data.workers, prefetch_batches=config.data.prefetch_batches) as loader:
        learner, waited = Learner(config, device), DataWait(loader, device)
        source = check_sizes(learner.model, config, stored.image_size)

        def views() -> Generator[Views, None, None]:
            for batch in on_device(loader, device, 0, waited):
                boxes = draw_boxes(0, batch.host.positions, config.views.crop_scale, source)
                yield cut_views(batch.pixels, boxes, view_size=config.views.image_size, source_size=source)

        stream = views()
        row = timed(learner, stream, steps, warmup, waited.seconds, wait_every_step)
        stream.close()
        return row | {"samples_in_set": len(order), "workers": config.data.workers}


def parts_row(config: Config, steps: int, warmup: int, samples_per_s: float) -> dict[str, float]:
    """Milliseconds of every part of a step, its operations per sample, and which share of a matrix product's rate they run at."""
    learner = Learner(config, pick_device(config.train.device))
    views = resident_views(config, learner)
    found = {f"{name}_ms": round(ms, 3) for name, ms in parts_ms(learner, views, steps, warmup).items()}
    flop = flop_per_sample(learner, views)
    rate = matmul_flop_per_s(learner.device, config.train.precision)
    found |= {"gflop_per_sample": round(flop / 1e9, 3), "matmul_gflop_per_s": round(rate / 1e9, 1)}
    return found | {"share_of_matmul_rate": round(flop * samples_per_s / rate, 4)}


def compiled_difference(config: Config) -> float:
    """Largest relative difference of a number of the first step, compiled against eager."""
    numbers = []
    for compiled in (False, True):
        learner = Learner(
            replace(config, train=replace(config.train, compile=compiled)), pick_device(config.train.device)
        )
        numbers.append(learner.learn(next(resident_views(config, learner))).numbers())
    return max(abs(numbers[1][name] / value - 1) for name, value in numbers[0].items())


@click.command(context_settings={"show_default": True})
@click.option("--variant", default="dinov2_vits14")
@click.option("--size", default=224, help="Side of a view, pixels.")
@click.option("--batch", default=128)
@click.option("--accumulate", default=1)
@click.option("--device", default="auto")
@click.option("--precision", "precisions", multiple=True, default=("fp32", "bf16"), help="Repeatable.")
@click.option("--compile", "compiled", is_flag=True, help="Also through torch.compile.")
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
    on_cuda = pick_device(device).type == "cuda"
    if not on_cuda and not return_memory:
        keep_freed_memory(OF_A_STEP)
    if threads:
        torch.set_num_threads(threads)
    base = load_config(
        None,
        [
            *(f"encoder.variant={variant}", "encoder.init=random", f"views.image_size={size}"),
            *(f"train.batch_size={batch}", f"train.accumulate={accumulate}", f"train.device={device}"),
            f"data.workers={workers}",
        ],
    )
    found: dict[str, float] = {}

    def keep(figure: str, value: float, unit: str, note: str = "") -> None:
        gpu = (
            torch.cuda.get_device_name() if on_cuda else None
        )  # asked late: the first loader forks before CUDA is used
        record("train_step", figure, value, unit, note, device=gpu)

    for precision in precisions:
        if not on_cuda and precision != "fp32" and not (precision == "bf16" and has_bf16()):
            continue
        config = replace(base, train=replace(base.train, precision=precision))  # type: ignore[arg-type]
        name = f"{variant}_{size}_b{batch}_{precision}"
        rows: list[tuple[str, Config, Path | None, bool]] = [("resident", config, None, False)]
        if on_cuda:
            rows.append(("waiting_every_step_resident", config, None, True))
        if compiled:
            rows.append(("compiled_resident", replace(config, train=replace(config.train, compile=True)), None, False))
        if shards:
            rows.insert(0, ("shards", config, shards, False))
        for kind, asked, root, waiting in rows:
            row = rate_row(asked, steps, warmup, root, waiting)
            what = {"variant": variant, "size": size, "batch": batch, "accumulate": accumulate, "precision": precision}
            what |= {"kind": kind, "device": device_name(pick_device(device))}
            print(json.dumps({"bench": "train_step", **what, **row}), flush=True)
            figure = f"{name}_{kind}" + ("_returning_memory" if return_memory else "")
            found[f"{precision} {kind}"] = row["samples_per_s"]
            note = f"{row['ms_per_step']} ms/step, waiting {100 * row['data_wait_share']:.1f} %"
            unit = "1/s" if clock(pick_device(device)) is time.perf_counter else "1/CPU-s"
            keep(f"{figure}_samples_per_s", row["samples_per_s"], unit, note)
            if not on_cuda:  # what clearing memory costs; other load on the machine moves it much less than the rate
                keep(f"{figure}_cpu_ms_per_step", row["cpu_ms_per_step"], "ms", "CPU time of this process")
                keep(f"{figure}_system_ms_per_step", row["system_ms_per_step"], "ms", "of which system time")
        if compiled:
            note = "a loss or the gradient's norm of the first step, compiled against eager"
            keep(f"{name}_compiled_relative_difference", compiled_difference(config), "", note)
            keep(f"{name}_compiled_over_eager", ratio(found, precision, "compiled_resident"), "x", "rates of this call")
        if on_cuda:
            waiting_ratio = ratio(found, precision, "waiting_every_step_resident")
            keep(f"{name}_waiting_every_step_over_not", waiting_ratio, "x", "rates of this call")
        if accumulate == 1:
            parts = parts_row(config, steps, warmup, found[f"{precision} resident"])
            show_parts(name, parts, keep)
    if "bf16 resident" in found and "fp32 resident" in found:
        faster = found["bf16 resident"] / found["fp32 resident"]
        keep(f"{variant}_{size}_b{batch}_bf16_over_fp32", faster, "x", "rates of this call")


def ratio(found: dict[str, float], precision: str, kind: str) -> float:
    """Rate of one kind of step over that of the plain one."""
    return found[f"{precision} {kind}"] / found[f"{precision} resident"]


def show_parts(name: str, parts: dict[str, float], keep: Callable[[str, float, str, str], None]) -> None:
    """The table of where the time goes; its figures are recorded as well."""
    total = sum(parts[f"{part}_ms"] for part in PARTS)
    for part in PARTS:
        ms = parts[f"{part}_ms"]
        keep(f"{name}_{part}_ms", ms, "ms", f"{100 * ms / total:.1f} % of the parts' {total:.1f} ms")
    note = (
        f"{parts['gflop_per_sample']} GFLOP per sample; a matrix product runs at {parts['matmul_gflop_per_s']} GFLOP/s"
    )
    keep(f"{name}_share_of_matmul_rate", 100 * parts["share_of_matmul_rate"], "%", note)


def device_name(device: torch.device) -> str:
    """What the row was measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"


if __name__ == "__main__":
    main()

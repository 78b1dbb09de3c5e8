"""What a step with K neighbours of every anchor costs against K steps with one: K maps from one pass of encoder and decoder.

    python bench/several_neighbours.py                                              # the paper's size: DINOv2-S14, 224, batch 128
    python bench/several_neighbours.py --variant demo_vit8 --size 128 --batch 8 --threads 1

One batch of random pixels and flows lies on the device. Steps with 1 and with K neighbours take turns, and medians are compared: of
the process's CPU time on a CPU, so that other load hardly matters, of elapsed time on a GPU.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import click
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record
from common.device import pick_device
from common.freed_memory import OF_A_STEP, keep_freed_memory
from trainer.config import load_config
from trainer.learner import Learner, check_sizes
from trainer.views import Pixels, Views, cut_views, draw_boxes

STORED, STORED_FLOW = 448, 224


@click.command(context_settings={"show_default": True})
@click.option("--variant", default="dinov2_vits14")
@click.option("--size", default=224, help="Side of a view, pixels.")
@click.option("--batch", default=128)
@click.option("--neighbours", default=4)
@click.option("--precision", default="fp32")
@click.option("--device", default="auto")
@click.option("--threads", default=0, help="CPU threads of torch; 0: its default.")
@click.option("--turns", default=7)
def main(
    variant: str, size: int, batch: int, neighbours: int, precision: str, device: str, threads: int, turns: int
) -> None:
    settings = [
        f"encoder.variant={variant}",
        "encoder.init=random",
        f"views.image_size={size}",
        f"train.batch_size={batch}",
    ]
    config = load_config(None, [*settings, f"train.precision={precision}", f"train.device={device}"])
    if threads:
        torch.set_num_threads(threads)
    where = pick_device(device)
    if where.type == "cpu":
        keep_freed_memory(OF_A_STEP)
    learner = Learner(config, where)
    source = check_sizes(learner.model, config, STORED)
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, STORED, STORED, 3), dtype=torch.uint8, generator=draw).to(where)
    shape = (batch, neighbours, 2, STORED_FLOW, STORED_FLOW)
    flows = torch.randint(-400, 400, shape, dtype=torch.int16, generator=draw).to(where)
    quanta = torch.full((batch, neighbours), 1 / 32, device=where)

    def views(count: int) -> Views:
        pixels = Pixels(images, flows[:, :count], quanta[:, :count])
        boxes = draw_boxes(0, np.arange(batch), config.views.crop_scale, source)
        return cut_views(pixels, boxes, view_size=size, source_size=source)

    clock = time.process_time if where.type == "cpu" else time.perf_counter
    seconds: dict[int, list[float]] = {1: [], neighbours: []}
    for turn in range(turns + 1):  # the first warms up
        for count, found in seconds.items():
            started = clock()
            learner.learn(views(count)).values.tolist()  # waits for the device
            if turn:
                found.append(clock() - started)
    one, several = (statistics.median(found) for found in seconds.values())
    about = f"{variant}, {size} px, batch {batch}, {precision}, median of {turns}"
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else None
    record("neighbours", f"step_with_{neighbours}_over_step_with_1", several / one, "x", about, device=name)
    record(
        "neighbours", f"pairs_per_s_with_{neighbours}_over_with_1", neighbours * one / several, "x", about, device=name
    )


if __name__ == "__main__":
    main()

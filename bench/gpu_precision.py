"""What tf32 and bf16 change in numbers: the training step and the flow networks, against fp32, and CUDA against the CPU.

Same weights, same batch, same views in every mode. A training is compared by its loss and by the gradient of its first step (the
length of the difference over the length of the fp32 gradient), and by its loss some steps later, when small differences have added up.
Flow is compared in pixels. Weights are random: trained networks may differ more or less.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record
from bench.train_step import resident_views
from common.command import one_line_errors
from common.device import pick_device
from pipeline.flow import precision as flow_precision
from pipeline.flow.estimator import EstimatorOptions, create
from trainer.config import load_config
from trainer.device import has_bf16
from trainer.learner import Learner


class Trained(NamedTuple):
    """Losses of the first and the last step, and the first step's gradient, on the CPU as float32."""

    first: float
    last: float
    gradient: Tensor


def trained(settings: Sequence[str], device: torch.device, precision: str, steps: int) -> Trained:
    """So many steps on one batch, views drawn anew in every step; ends on the same numbers wherever arithmetic is exact."""
    config = load_config(None, [*settings, f"train.device={device}", f"train.precision={precision}"])
    learner = Learner(config, device)
    views = resident_views(config, learner)
    first = learner.learn(next(views)).numbers()["total"]
    gradient = torch.cat([p.grad.detach().float().flatten().cpu() for p in learner.parameters if p.grad is not None])
    last = first
    for _ in range(steps - 1):
        last = learner.learn(next(views)).numbers()["total"]
    return Trained(first, last, gradient)


def record_difference(name: str, ours: Trained, theirs: Trained, steps: int, gpu: str | None) -> None:
    """Three rows. theirs: the reference."""
    gradient = float((ours.gradient - theirs.gradient).norm() / theirs.gradient.norm())
    record("precision", f"{name}_first_loss", abs(ours.first / theirs.first - 1), "", "relative difference", device=gpu)
    record("precision", f"{name}_first_gradient", gradient, "", "relative difference", device=gpu)
    note = f"relative difference; fp32 had gone from {theirs.first:.4f} to {theirs.last:.4f}"
    record("precision", f"{name}_loss_after_{steps}", abs(ours.last / theirs.last - 1), "", note, device=gpu)


def training_precisions(device: torch.device, *, small: bool, gpu: str | None) -> None:
    """Every precision against fp32; on CUDA also fp32 there against the CPU, at a small size."""
    tiny = ["encoder.variant=tiny_dino8", "encoder.init=random", "views.image_size=32", "train.batch_size=4"]
    paper = ["encoder.variant=dinov2_vits14", "encoder.init=random", "views.image_size=224", "train.batch_size=16"]
    settings, steps = (tiny, 3) if small else (paper, 20)
    exact = trained(settings, device, "fp32", steps)
    others = ("tf32", "bf16") if device.type == "cuda" else (("bf16",) if has_bf16() else ())
    for precision in others:
        record_difference(f"train_{precision}", trained(settings, device, precision, steps), exact, steps, gpu)
    record_difference("train_fp32_again", trained(settings, device, "fp32", steps), exact, steps, gpu)
    if device.type == "cuda":
        here, there = (trained(tiny, torch.device(name), "fp32", 3) for name in (str(device), "cpu"))
        record_difference("train_tiny_fp32_against_cpu", here, there, 3, gpu)


def flow_precisions(device: torch.device, *, small: bool, gpu: str | None) -> None:
    """End-point differences of the networks in every precision, channels-last or not."""
    networks, side_px = (("raft-small",), 128) if small else (("sea-raft-m", "raft-small", "raft"), 224)
    precisions = ("bf16",) if device.type == "cpu" else ("tf32", "bf16", "fp16")
    for network in networks:
        for mode in flow_precision.compare(network, "random:0", str(device), precisions, side_px, None, False):
            name = f"{network}_{mode.mode.replace(' ', '_')}"
            note = f"p99 {mode.p99_epe_px:.3g}, most {mode.max_epe_px:.3g}, mean motion {mode.mean_motion_px:.3g} px"
            record("precision", f"{name}_mean_epe", mode.mean_epe_px, "px", note, device=gpu)
    if device.type == "cuda":
        windows = [flow_precision.moving_texture(128)]
        here, there = (create("raft-small", EstimatorOptions("random:0", n)).estimate(windows)[0].flow_kchw
                       for n in (str(device), "cpu"))  # fmt: skip
        record("precision", "raft-small_fp32_against_cpu", float(abs(here - there).max()), "px", "most", device=gpu)


@click.command(context_settings={"show_default": True})
@click.option("--device", default="auto")
@click.option("--small", is_flag=True)
@one_line_errors(out_of_memory="other processes use the device")
def main(device: str, small: bool) -> None:
    """Differences, first of training, then of flow."""
    chosen = pick_device(device)
    if chosen.type == "cpu":
        torch.set_num_threads(1)
    gpu = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else None
    training_precisions(chosen, small=small, gpu=gpu)
    flow_precisions(chosen, small=small, gpu=gpu)


if __name__ == "__main__":
    main()

"""Flow networks: pairs per second, memory per pair, and what sharing work between neighbours saves.

    python bench/flow.py --quick                      # a few minutes on one core
    python bench/flow.py --device cuda                # every network, size, batch and precision
    python bench/flow.py --quick --only sharing       # MACs and time against pairwise calls

Weights are random: neither speed nor memory depends on them. Rows are JSON lines; --record also
appends them to results.csv. "pairwise" is the float32 baseline of `flow_pairwise.py`. On one CPU
thread (the default) times are CPU times, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.flow_pairwise import count_macs, pairwise_call
from bench.flow_peak_memory import peak_bytes
from bench.record import record
from pipeline.flow.estimator import EstimatorOptions, FlowEstimator, create
from pipeline.flow.networks.build import build_network
from pipeline.flow.networks.table import NETWORKS
from pipeline.flow.precision import moving_texture
from pipeline.flow.precision_modes import PRECISIONS, float32_kernels
from pipeline.flow.weights.checkpoints import load_random
from pipeline.window import Window

K = 4


def windows_of(pairs: int, side_px: int) -> list[Window]:
    """`pairs` pairs as windows of different textures with K neighbours each (fewer where pairs < K)."""
    windows = [_texture(side_px, seed) for seed in range(-(-pairs // K))]
    if pairs >= K:
        return windows
    whole = windows[0]
    return [replace(whole, offsets=whole.offsets[:pairs], neighbour_indices=whole.neighbour_indices[:pairs],
                    neighbours_khwc=whole.neighbours_khwc[:pairs])]  # fmt: skip


@cache
def _texture(side_px: int, seed: int) -> Window:
    """Drawn once: a batch of 256 pairs takes longer to draw than to estimate."""
    return moving_texture(side_px, seed)


def wait(device: torch.device) -> None:
    """Until the accelerator has done what was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best_seconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Shortest of `repeats` runs after one that warms up. One CPU thread is timed by its own clock: neighbours do not count."""
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    run()
    times = []
    for _ in range(repeats):
        wait(device)
        start = clock()
        run()
        wait(device)
        times.append(clock() - start)
    return min(times)


class Report:
    """Prints a row per figure and records it if asked to."""

    def __init__(self, device: torch.device, keep: bool) -> None:
        self.keep = keep
        self.device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else None

    def row(self, figure: str, value: float, unit: str, note: str = "") -> None:
        print(
            json.dumps({"bench": "flow", "figure": figure, "value": float(f"{value:.5g}"), "unit": unit, "note": note}),
            flush=True,
        )
        if self.keep:
            record("flow", figure, value, unit, note, device=self.device_name)


def convolution_rate(device: torch.device, dtype: torch.dtype, repeats: int) -> float:
    """Multiply-adds per second of the 3×3 convolution 256→256 at 28×28, 256 maps on an accelerator and 8 on a CPU."""
    maps = 256 if device.type == "cuda" else 8
    x = torch.randn(maps, 256, 28, 28, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    conv = torch.nn.Conv2d(256, 256, 3, padding=1, device=device, dtype=dtype)
    conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode(), float32_kernels(False):
        seconds = best_seconds(lambda: conv(x), device, repeats)
    return maps * 28 * 28 * 256 * 256 * 9 / seconds


def throughput(name: str, args: argparse.Namespace, device: torch.device, report: Report) -> None:
    """pairs/s and bytes per pair of one network at every size, batch and precision, and the ratio to the baseline."""
    net = build_network(name).eval().to(device)
    load_random(net, 0)
    for side_px in args.sides:
        window = windows_of(1, side_px)[0]
        frames = np.stack([window.anchor_hwc, window.neighbours_khwc[0]])
        frames_2chw = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous().to(device)
        with torch.inference_mode(), float32_kernels(False):
            pairwise = partial(pairwise_call, net, frames_2chw, net.default_iterations)
            base_s = best_seconds(pairwise, device, args.repeats)
        report.row(f"{name} {side_px} pairwise fp32", 1 / base_s, "pairs/s")
        for precision in args.precisions:
            options = EstimatorOptions(
                "random:0", str(device), precision, extra={"batch_pairs": "4096", "compile": str(args.compile)}
            )
            estimator = create(name, options)
            rate = convolution_rate(device, PRECISIONS[precision], args.repeats)
            for batch in args.batches:
                seconds = one_size(estimator, name, side_px, precision, batch, base_s, device, args, report)
                if batch >= K:
                    macs = shared_macs(net, side_px, device)
                    note = f"of {rate / 1e12:.3f} TMAC/s measured on a 3×3 convolution of 256 channels"
                    share = 100 * macs * batch / seconds / rate
                    report.row(f"{name} {side_px} {precision} batch {batch} convolution rate reached", share, "%", note)


def one_size(
    estimator: FlowEstimator, name: str, side_px: int, precision: str, batch: int, base_s: float,
    device: torch.device, args: argparse.Namespace, report: Report,
) -> float:  # fmt: skip
    """Speed and peak memory of one setting; returns the seconds that the batch took."""
    windows = windows_of(batch, side_px)
    seconds = best_seconds(lambda: estimator.estimate(windows), device, args.repeats)
    speed = batch / seconds
    report.row(f"{name} {side_px} {precision} batch {batch}", speed, "pairs/s", f"{speed * base_s:.2f} × pairwise fp32")
    used = peak_bytes(lambda: estimator.estimate(windows), device)
    halvings = getattr(estimator, "halvings", 0)
    report.row(
        f"{name} {side_px} {precision} batch {batch} memory", used / batch / 2**20, "MiB/pair", f"{halvings} halvings"
    )
    return seconds


def shared_macs(net: torch.nn.Module, side_px: int, device: torch.device) -> float:
    """Multiply-adds per pair of one window with K neighbours."""
    frames = torch.zeros(K + 1, 3, side_px, side_px, device=device)
    pairs = [(0, k) for k in range(1, K + 1)]
    return count_macs(lambda: net(frames, pairs, net.default_iterations)) / K


def sharing(name: str, args: argparse.Namespace, device: torch.device, report: Report) -> None:
    """One anchor with K neighbours: counted MACs and time, together and pair by pair, in alternation in one run."""
    net = build_network(name).eval().to(device)
    load_random(net, 0)
    window = moving_texture(224)
    frames = torch.from_numpy(np.concatenate([window.anchor_hwc[None], window.neighbours_khwc])).to(device)
    frames_fchw = frames.permute(0, 3, 1, 2).contiguous()
    pairs, iterations = [(0, k) for k in range(1, K + 1)], net.default_iterations

    def together() -> torch.Tensor:
        return net(frames_fchw, pairs, iterations).flow_p2hw

    def apart() -> torch.Tensor:
        return torch.cat([pairwise_call(net, frames_fchw[list(pair)], iterations) for pair in pairs])

    macs = count_macs(together), count_macs(apart)
    with torch.inference_mode(), float32_kernels(False):
        difference = float((together() - apart()).abs().max())
        seconds = [[best_seconds(run, device, 1) for run in (together, apart)] for _ in range(args.repeats)]
    fastest = np.min(seconds, axis=0)
    report.row(f"{name} 224 K={K} MACs saved", 100 * (1 - macs[0] / macs[1]), "%", f"{macs[0] / K / 1e9:.2f} GMAC/pair")
    report.row(
        f"{name} 224 K={K} time saved", 100 * (1 - fastest[0] / fastest[1]), "%", f"{fastest[0] / K * 1000:.0f} ms/pair"
    )
    report.row(f"{name} 224 K={K} difference to pairwise", difference, "px")


def dis_throughput(args: argparse.Namespace, device: torch.device, report: Report) -> None:
    """The classical estimator beside the networks."""
    estimator = create("dis")
    for side_px in args.sides:
        for batch in args.batches:
            windows = windows_of(batch, side_px)
            seconds = best_seconds(partial(estimator.estimate, windows), device, args.repeats)
            report.row(f"dis {side_px} batch {batch}", batch / seconds, "pairs/s")


def command_line() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--sides", nargs="+", type=int, default=[224, 448])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--precisions", nargs="+", default=None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", choices=("sharing", "throughput", "dis"))
    parser.add_argument("--quick", action="store_true", help="224 px, batches 1 and 8, fp32 and bf16, one repeat")
    parser.add_argument("--record", action="store_true")
    return parser


def main() -> None:
    """Parse, measure, print."""
    args = command_line().parse_args()
    if args.quick:
        args.sides, args.batches, args.repeats = [224], [1, 8], 1
    if args.precisions is None:
        args.precisions = ["fp32", "bf16"] if args.device == "cpu" else ["fp32", "tf32", "bf16", "fp16"]
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    report = Report(device, args.record)
    if args.only in (None, "dis"):
        dis_throughput(args, device, report)
    for name in args.networks:
        if args.only in (None, "sharing"):
            sharing(name, args, device, report)
        if args.only in (None, "throughput"):
            throughput(name, args, device, report)


if __name__ == "__main__":
    main()

"""Peak memory of three probes on a CPU against what their modules state: label propagation at 480p, a k-NN bank, a linear probe at 480p.

    python bench/probe_memory.py [--record]

Each part runs in a process of its own on one thread, with random features of the real sizes: what counts is the most that the process
ever held, less what it held before the features were made. No network runs; its maps are of the sizes given.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench.record import record
from probes.heads import linear
from probes.heads.feature_bank import BLOCK_ROWS, QUERY_ROWS, BankSettings, FeatureBank, capacity_within
from probes.heads.label_propagation import DINO480, TILE, LabelPropagator
from probes.sources.features import Features

MB = 1e6
ENCODER, DECODER = 384, 128
SIZE, GRID = (480, 832), (30, 52)
BANK_BYTES = 200_000_000
ALLOCATOR_MB = 40
"""What is freed and not yet given back."""


def held_mb(what: str) -> float:
    """VmRSS: now; VmHWM: at most so far."""
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(what))
    return int(line.split()[1]) * 1024 / MB


def knn() -> float:
    """Twenty frames of 384 + 128 channels and 2 objects on the token grid. Stated: both queues with their labels, a copy of the larger
    one, a tile (its sources' features and four tensors of affinities), and what the allocator keeps."""
    labels = torch.rand(3, *GRID)
    queues = [LabelPropagator(torch.randn(channels, *GRID), labels, DINO480) for channels in (ENCODER, DECODER)]
    for _ in range(20):
        for queue, channels in zip(queues, (ENCODER, DECODER), strict=True):
            queue.step(torch.randn(channels, *GRID))
    cells = GRID[0] * GRID[1]
    queues_mb = (8 * (ENCODER + DECODER + 2 * 3) + 8 * (ENCODER + 3)) * cells * 4 / MB
    sources = 8 * (TILE + 2 * DINO480.radius) ** 2
    return queues_mb + sources * 4 * (ENCODER + 4 * TILE**2) / MB + ALLOCATOR_MB


def knn_bank() -> float:
    """A bank of 200 MB filled from 160 pictures with 28x28 cells, and one asked. Stated: its bytes, the cosines of a block and what is
    picked from them."""
    capacity = capacity_within(BANK_BYTES, ENCODER, 12)
    bank = FeatureBank(ENCODER, 12, 160, BankSettings(capacity=capacity))
    for _ in range(160):
        bank.add(torch.randn(1, ENCODER, 28, 28), torch.randint(0, 12, (1, 56, 56), dtype=torch.uint8))
    bank.probabilities(torch.randn(1, ENCODER, 28, 28))
    return (BANK_BYTES + 2 * 4 * QUERY_ROWS * BLOCK_ROWS) / MB


def linear_480p() -> float:
    """512 channels at 480x832: 384 of tokens, 128 at every pixel; three steps (more hold no more), then a frame. Stated: 6 GB."""
    features = Features(torch.randn(1, ENCODER, *GRID), torch.randn(1, DECODER, *SIZE))
    labels = torch.randint(0, 3, SIZE)
    probe = linear.fit(features, labels, 3, iterations=3)
    probe.predict(features, 480, 854)
    return 6000.0


PARTS = {"knn_480p": knn, "knn_bank": knn_bank, "linear_480p": linear_480p}


@click.command()
@click.option("--record", "recorded", is_flag=True, help="Append to bench/results.csv.")
@click.option("--part", type=click.Choice(list(PARTS)), hidden=True)
def main(recorded: bool, part: str | None) -> None:
    if part is not None:
        torch.set_num_threads(1)
        warm = LabelPropagator(torch.randn(4, 4, 4), torch.rand(2, 4, 4), DINO480)
        warm.step(torch.randn(4, 4, 4))  # loads what torch loads at the first product
        before = held_mb("VmRSS")
        stated = PARTS[part]()
        print(held_mb("VmHWM") - before, stated)
        return
    for name in PARTS:
        done = subprocess.run([sys.executable, __file__, "--part", name], capture_output=True, text=True, check=True)
        measured, stated = (float(value) for value in done.stdout.split())
        note = f"stated: {stated:.0f} MB; {(PARTS[name].__doc__ or '').split(' Stated')[0].strip()}"
        if recorded:
            record("probe_memory", f"{name}_peak", measured, "MB", note)
        else:
            print(f"{name:14s} {measured:8.0f} MB   {note}")
        if measured > stated:
            raise SystemExit(f"Error: {name} held {measured:.0f} MB, above the stated {stated:.0f} MB")


if __name__ == "__main__":
    main()

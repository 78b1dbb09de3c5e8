"""How many pictures go through a network at once, and in which order a training sees them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

BATCH_PIXELS = {"cpu": 480 * 832, "cuda": 8 * 480 * 832}
"""Pixels of the network's input per batch: one 480p frame on a CPU, where more gain nothing and cost 1 GB each."""
MOST_PICTURES = 8
"""Pictures per batch, however small they are."""


def pictures_per_batch(size_hw: tuple[int, int], device: torch.device) -> int:
    pixels = BATCH_PIXELS.get(device.type, BATCH_PIXELS["cpu"])
    return min(max(1, pixels // (size_hw[0] * size_hw[1])), MOST_PICTURES)


class BatchLimit:
    """How many pictures go through at once, fewer after memory ran out. The sources of a unit share one."""

    def __init__(self) -> None:
        self._most = MOST_PICTURES
        self._taken = 1

    def pictures(self, size_hw: tuple[int, int], device: torch.device) -> int:
        self._taken = min(pictures_per_batch(size_hw, device), self._most)
        return self._taken

    def halve(self) -> bool:
        """Half of what was asked for last; False where that was a single picture."""
        smaller, self._most = self._taken > 1, max(1, self._taken // 2)
        return smaller

    @property
    def most(self) -> int:
        return self._most


def batches(first: int, stop: int, size: int) -> Iterator[range]:
    for start in range(first, stop, size):
        yield range(start, min(start + size, stop))


def shuffled_batches(pictures: int, size: int, iterations: int, seed: int) -> Iterator[list[int]]:
    """Numbers of the pictures of each batch: passes in a new order each; the next pass completes the last batch of one."""
    generator = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    for _ in range(iterations):
        while len(waiting) < size:
            waiting += torch.randperm(pictures, generator=generator).tolist()
        yield waiting[:size]
        del waiting[:size]

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
    """How much goes through at once, less after memory ran out. The sources of a unit share one."""

    def __init__(self) -> None:
        self._divisor = 1
        self._asked: dict[str, int] = {}
        self._kept = False

    def pictures(self, size_hw: tuple[int, int], device: torch.device, most: int = MOST_PICTURES) -> int:
        """Pictures of this size that go through a network at once."""
        return self._allowed("pictures", min(pictures_per_batch(size_hw, device), most))

    def points(self, most: int) -> int:
        """Points that are looked for at once."""
        return self._allowed("points", most)

    def keeps(self, needed_bytes: int, allowed_bytes: int) -> bool:
        """Whether features may be kept: where they fit, and never after memory ran out."""
        self._kept = self._divisor == 1 and needed_bytes <= allowed_bytes
        return self._kept

    def halve(self) -> bool:
        """Half of what was asked for last, and nothing kept; False where that changes nothing."""
        smaller = self._kept or any(self._now(asked) > 1 for asked in self._asked.values())
        self._divisor, self._kept = 2 * self._divisor, False
        return smaller

    @property
    def most(self) -> str:
        """`4 pictures and 128 points`: what goes through at once now."""
        return " and ".join(f"{self._now(asked)} {noun}" for noun, asked in self._asked.items()) or "1 picture"

    def _allowed(self, noun: str, most: int) -> int:
        self._asked[noun] = most
        return self._now(most)

    def _now(self, most: int) -> int:
        return max(1, most // self._divisor)


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

"""Masks as long integers, a bit per pixel, in which one shift moves every pixel: boundaries and their dilation by a disk.

`davis.py` brings masks in and takes counts of bits out. `bench/jf.py` has the speed, against the same by arrays and OpenCV.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class BitLayout:
    """Where the pixels of a mask of `height` x `width` lie in a number: row after row, the first pixel in the highest bit.

    At least `radius_px` empty bits follow every row: what a dilation moves over a row's end falls among them, not into a row.
    """

    height: int
    width: int
    radius_px: int

    @property
    def row(self) -> int:
        """Bits of a row, the empty ones among them; a multiple of 8."""
        return (self.width + self.radius_px + 7) // 8 * 8

    def bits(self, mask: Mask) -> int:
        packed = np.zeros((self.height, self.row // 8), np.uint8)
        packed[:, : (self.width + 7) // 8] = np.packbits(mask, axis=1)
        return int.from_bytes(packed.tobytes(), "big")

    def mask(self, bits: int) -> Mask:
        packed = np.frombuffer(bits.to_bytes(self.height * self.row // 8, "big"), np.uint8)
        return np.unpackbits(packed.reshape(self.height, -1), axis=1, count=self.width).astype(bool)

    def _without_last(self, rows: int, columns: int) -> int:
        """Every pixel but those of so many last rows and columns."""
        width = self.width - columns
        one = (((1 << width) - 1) << (self.row - width)).to_bytes(self.row // 8, "big")
        return int.from_bytes(one * (self.height - rows) + bytes(len(one) * rows), "big")

    def boundary(self, bits: int) -> int:
        """Pixels that differ from their right, lower or lower-right neighbour, as far as they have these."""
        right = (bits ^ bits << 1) & self._without_last(0, 1)
        below = (bits ^ bits << self.row) & self._without_last(1, 0)
        return right | below | (bits ^ bits << self.row + 1) & self._without_last(1, 1)

    def dilated(self, bits: int) -> int:
        """Pixels in the disk dx^2 + dy^2 <= r^2 around some pixel: per row of the disk a horizontal run. Outside the mask's
        own pixels there are bits without a meaning."""
        near, run, half = 0, bits, 0
        for down in range(self.radius_px, -1, -1):
            while half < math.isqrt(self.radius_px**2 - down**2):
                half += 1
                run |= bits << half | bits >> half
            near |= run << down * self.row | run >> down * self.row
        return near

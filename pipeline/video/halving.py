"""An image at half its size, bit by bit what Pillow's bilinear filter makes of it, in a quarter of the time.

Comes in: an RGB square of even side. Goes out: the square of half the side. At exactly 2:1 Pillow's antialiased triangle weighs four
neighbours 1 3 3 1 (eighths); at the borders, where the first or the last of them is missing, 3 3 1 (sevenths). It halves the number of
columns, rounds half up to whole grey levels, then that of the rows. Eighths are exact in 16 bits; Pillow's sevenths have 22 bits after the
point, and with three grey levels they always round as exact ones. Columns are halved as rows of the transposed image: what is added lies
side by side, and transposing is cheap.

Shape legend: N rows, M grey levels in a row (width times channels).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.video.reused_arrays import ReusedArrays

SMALLEST_PX = 2
"""Side of the result below which both borders would meet in one pixel."""
_ROWS_AT_ONCE = 56
_ONE_SEVENTH, _SEVENTH_BITS = 9363, 16
"""n * 9363 >> 16 is n // 7 for all n below 13,110; 7 * 255 + 3 is the most that comes up."""
_reused = ReusedArrays()


def halved(square_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[S, S, 3] uint8, S even and at least 4 -> [S / 2, S / 2, 3] uint8."""
    side, half = square_hwc.shape[0], square_hwc.shape[0] // 2
    turned_whc = cv2.transpose(square_hwc, _reused.take("turned", (side, side, 3)))
    narrow_wm = _reused.take("narrow", (half, side * 3))
    _halve_rows(turned_whc.reshape(side, side * 3), narrow_wm)
    narrow_hwc = cv2.transpose(narrow_wm.reshape(half, side, 3), _reused.take("turned", (side, half, 3)))
    small_hm = np.empty((half, half * 3), np.uint8)
    _halve_rows(narrow_hwc.reshape(side, half * 3), small_hm)
    return small_hm.reshape(half, half, 3)


def _halve_rows(rows_nm: NDArray[np.uint8], made: NDArray[np.uint8]) -> None:
    """[N, M] -> made [N / 2, M]: (odd[i-1] + 3 even[i] + 3 odd[i] + even[i+1]) / 8, rounded half up; sevenths at both ends."""
    even, odd = rows_nm[0::2], rows_nm[1::2]
    inner, length = made.shape[0] - 1, made.shape[1]
    sums = _reused.take("sums", (3, _ROWS_AT_ONCE + 1, 2 * length)).view(np.uint16)
    for start in range(1, inner, _ROWS_AT_ONCE):  # what is added stays in the processor's cache
        stop = min(start + _ROWS_AT_ONCE, inner)
        upper, lower, total = sums[:, : stop - start + 1]
        np.copyto(upper, odd[start - 1 : stop])
        np.copyto(lower, even[start : stop + 1])
        total = np.add(upper[1:], lower[:-1], total[1:])
        total *= np.uint16(3)
        total += upper[:-1]
        total += lower[1:]
        total += np.uint16(4)
        total >>= np.uint16(3)
        np.copyto(made[start:stop], total, casting="unsafe")
    _make_ends(rows_nm, made)


def _make_ends(rows_nm: NDArray[np.uint8], made: NDArray[np.uint8]) -> None:
    """Both end rows of `_halve_rows` at once: (3 a + 3 b + c) / 7, rounded, of the row at the border and the two behind it."""
    last = len(rows_nm) - 1
    total = rows_nm[::last].astype(np.uint32)
    total += rows_nm[1 : last : last - 2]
    total *= 3
    total += rows_nm[2 :: last - 4][:2]
    total += 3  # sevenths are never halfway between two levels
    total *= _ONE_SEVENTH
    total >>= _SEVENTH_BITS
    np.copyto(made[:: len(made) - 1], total, casting="unsafe")

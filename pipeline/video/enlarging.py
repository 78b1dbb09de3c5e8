"""Rows of an image made more, bit by bit what Pillow's bilinear filter makes of them, in a third to a tenth of the time.

Comes in: rows of grey levels, each as long as one likes. Goes out: some of the rows of the enlarged image. Whoever wants more columns
transposes, which is cheap. When it enlarges, Pillow makes every row of the two nearest ones, `a` and `b`: in whole numbers
(a (2^22 - w) + b w + 2^21) >> 22, with w the rounded weight of b. That is what `_sums` does, all columns at once.

Where the sizes have a large common divisor (256 to 448: 4 to 7) few different weights come back in the same order, and all rows of
one weight are made in one call of cv2.addWeighted, in fp32 (`_phases`). Its rounding is not Pillow's where a sum is just between two
levels, so it is given the weight in the middle of all those that lead to Pillow's levels for every a and b, which is tried out before it
is used.

Shape legend: N rows before, S rows after, M grey levels in a row (width times channels).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import cv2
import numpy as np
from numpy.typing import NDArray

_BITS = 22
_ONE = 1 << _BITS
_HALF = 1 << (_BITS - 1)
MOST_PHASES = 64
"""Calls of cv2.addWeighted, of about a microsecond each, beyond which whole-number sums are as fast."""
_ROWS_AT_ONCE = 64
_HAIR = 2.0**-9
"""What is added before rounding where all sums between two levels go up, which is so for halves, quarters and the like."""
_MARGIN = 1e-4
"""Distance from where a sum would be rounded differently, in grey levels: more than fp32 can be off."""


@dataclass(frozen=True)
class _Phase:
    """Rows first, first + step ... of the result, from pairs of rows above, above + stride ... and the ones below them."""

    first: int
    above: int
    count: int
    weight: float
    added: float


@dataclass(frozen=True)
class _Plan:
    """above: [S] the upper of the two rows that each row is made of, at most N - 2. weights: [S, 1] of the lower one, in 2^-22.

    phases: the rows between the first and the last, by weight; None where there are too many weights. edges: rows that are copies: (of the
    result, of the source).
    """

    above: NDArray[np.intp]
    weights: NDArray[np.int32]
    step: int
    stride: int
    phases: tuple[_Phase, ...] | None
    edges: tuple[tuple[int, int], ...]


def enlarge_rows(rows_nm: NDArray[np.uint8], size: int, first: int, made: NDArray[np.uint8]) -> None:
    """Fill made [count, M] uint8 with rows first ... first + count of [N, M] uint8 made `size` (at least N) rows. N is at least 2."""
    plan = _plan(rows_nm.shape[0], size, first, len(made))
    if plan.phases is None:
        _sums(rows_nm, plan, made)
    else:
        _phases(rows_nm, plan, plan.phases, made)


def _sums(rows_nm: NDArray[np.uint8], plan: _Plan, made: NDArray[np.uint8]) -> None:
    count, length = made.shape
    lowest = plan.above[0]
    upper = rows_nm[lowest : plan.above[-1] + 2].astype(np.int32)
    steps = np.subtract(upper[1:], upper[:-1])
    upper <<= _BITS
    upper += _HALF
    sums, part = (np.empty((_ROWS_AT_ONCE, length), np.int32) for _ in range(2))
    for start in range(0, count, _ROWS_AT_ONCE):  # what is added stays in the processor's cache
        which = plan.above[start : start + _ROWS_AT_ONCE] - lowest
        some, more = sums[: len(which)], part[: len(which)]
        steps.take(which, axis=0, out=some, mode="clip")
        some *= plan.weights[start : start + _ROWS_AT_ONCE]
        upper.take(which, axis=0, out=more, mode="clip")
        some += more
        some >>= _BITS
        np.copyto(made[start : start + _ROWS_AT_ONCE], some, casting="unsafe")


def _phases(rows_nm: NDArray[np.uint8], plan: _Plan, phases: tuple[_Phase, ...], made: NDArray[np.uint8]) -> None:
    for phase in phases:
        last = phase.above + (phase.count - 1) * plan.stride
        above, below = rows_nm[phase.above : last + 1 : plan.stride], rows_nm[phase.above + 1 : last + 2 : plan.stride]
        target = made[phase.first :: plan.step][: phase.count]
        cv2.addWeighted(above, 1.0 - phase.weight, below, phase.weight, phase.added, target)
    for edge, source in plan.edges:
        made[edge] = rows_nm[source]


@lru_cache(maxsize=16)
def _plan(before: int, after: int, first: int, count: int) -> _Plan:
    wanted = np.arange(first, first + count)
    # As Pillow computes them: in double precision, in this order.
    centres = (wanted + 0.5) * (before / after)
    above = np.floor(centres - 0.5).astype(np.intp)
    upper, lower = (1.0 - np.abs(above + place - centres + 0.5) for place in (0, 1))
    weights = np.floor(lower / (upper + lower) * _ONE + 0.5).astype(np.int32)
    is_first, is_last = above < 0, above > before - 2
    edges = [(int(row), 0) for row in np.flatnonzero(is_first)]
    edges += [(int(row), before - 1) for row in np.flatnonzero(is_last)]
    weights[is_first], weights[is_last] = 0, _ONE
    above = np.clip(above, 0, before - 2)
    divisor = gcd(before, after)
    step, stride = after // divisor, before // divisor
    phases = _phases_of(above, weights, ~(is_first | is_last), step, stride) if step <= MOST_PHASES else None
    return _Plan(above, weights[:, None], step, stride, phases, tuple(edges))


def _phases_of(
    above: NDArray[np.intp], weights: NDArray[np.int32], inner: NDArray[np.bool_], step: int, stride: int
) -> tuple[_Phase, ...] | None:
    phases = []
    for start in range(min(step, len(above))):
        rows = np.arange(start, len(above), step)
        rows = rows[inner[rows]]
        if not len(rows):
            continue
        in_fp32 = _in_fp32(int(weights[rows[0]]))
        regular = (weights[rows] == weights[rows[0]]).all() and (np.diff(above[rows]) == stride).all()
        if in_fp32 is None or not regular:
            return None
        phases.append(_Phase(int(rows[0]), int(above[rows[0]]), len(rows), *in_fp32))
    return tuple(phases)


def _in_fp32(weight: int) -> tuple[float, float] | None:
    """(w, added) with which a + (b - a) w + added, rounded, is Pillow's level for all a and b: w in the middle of all such w.

    None where fp32 is too coarse to tell, or cv2.addWeighted, tried with the largest and the smallest a for each b - a, finds other
    levels.
    """
    every = np.concatenate([np.arange(-255, 0), np.arange(1, 256)])
    levels = (every * weight + _HALF) >> _BITS
    above = np.concatenate([np.maximum(0, -every), np.minimum(255, 255 - every)])
    below = above + np.tile(every, 2)
    for added in (0.0, _HAIR):
        ends = (levels - added + np.array([[-0.5 + _MARGIN], [0.5 - _MARGIN]])) / every
        least, most = ends.min(axis=0).max(), ends.max(axis=0).min()
        if least > most:
            continue
        middle = float(least + most) / 2
        found = cv2.addWeighted(above.astype(np.uint8), 1.0 - middle, below.astype(np.uint8), middle, added)
        return (middle, added) if np.array_equal(found.ravel(), above + np.tile(levels, 2)) else None
    return None

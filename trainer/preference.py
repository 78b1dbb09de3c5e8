"""Which anchors and neighbours are drawn more often than others: weights from the motion that the index records.

    motion m_ik    px: root mean square of the two channels' standard deviation in the flow of sample i to neighbour k, which is what
                   the standardised flow is divided by: how much moves against the rest of the picture, without the camera's mean
    weight w_ik    clip(m_ik / median m, 1/8, 8) ^ power;   power 0 is no preference, 1 proportional, negative prefers stillness
    sample w_i     mean of w_ik over its usable neighbours

`Preference` turns uniform draws into weighted ones and holds no state, so that what is seen stays a pure function of (seed, position):
`trainer.order` hands in the rows and draws of its positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LARGEST_RATIO = 8.0  # to the median: a few wild videos must not make up an epoch


def motion_weights(std_px_nk2: NDArray[np.floating], usable_nk: NDArray[np.bool_], power: float) -> Floats:
    """w_ik of n samples with K neighbours each; 0 where the pair is not usable. std_px: of dx and dy, pixels."""
    motion = np.sqrt(np.square(np.asarray(std_px_nk2, np.float64)).mean(axis=2))
    median = float(np.median(motion[usable_nk])) if usable_nk.any() else 1.0
    ratio = np.clip(np.nan_to_num(motion, nan=median) / max(median, 1e-9), 1 / LARGEST_RATIO, LARGEST_RATIO)
    return np.where(usable_nk, ratio**power, 0.0)


def sample_weights(weights_nk: Floats) -> Floats:
    """w_i: the mean over the usable neighbours."""
    return weights_nk.sum(axis=1) / np.maximum((weights_nk > 0).sum(axis=1), 1)


def edges_within(weights_n: Floats, groups_n: NDArray[np.int64]) -> Floats:
    """Upper edges of adjoining intervals on [0, n), one per row: w_i long, scaled so that every group keeps its own stretch.

    groups: ascending number of each row's group (its set, or its block where samples are read in blocks).
    """
    starts = np.flatnonzero(np.diff(groups_n, prepend=groups_n[0] - 1))
    sizes = np.diff(starts, append=len(groups_n))
    scaled = weights_n * np.repeat(sizes / np.add.reduceat(weights_n, starts), sizes)
    edges = np.cumsum(scaled)
    edges[np.append(starts[1:], len(edges)) - 1] = np.append(
        starts[1:], len(edges)
    )  # exact, whatever the sum's rounding
    return edges


@dataclass(frozen=True)
class Preference:
    """edges: of `edges_within`, None where all samples are alike; neighbours: w_ik per row, None where all are alike."""

    edges_n: Floats | None = None
    neighbours_nk: Floats | None = None

    def rows(self, rows: NDArray[np.int64], draws: Floats) -> NDArray[np.int64]:
        """Rows for evenly visited ones: row r with a draw in [0, 1) falls into one interval. Where every row comes once, row i
        comes w_i times on average, never more than one off on either side of it."""
        if self.edges_n is None:
            return rows
        return np.minimum(np.searchsorted(self.edges_n, rows + draws, side="right"), len(self.edges_n) - 1)

    def columns(self, rows: NDArray[np.int64], allowed: NDArray[np.bool_]) -> Floats:
        """Weight of every column of these rows; 0 where it is not allowed."""
        return allowed.astype(np.float64) if self.neighbours_nk is None else self.neighbours_nk[rows] * allowed


def pick_column(weights_nk: Floats, draws: Floats) -> NDArray[np.int64]:
    """One column per row, drawn by weight."""
    reached = np.cumsum(weights_nk, axis=1)
    return np.asarray((reached > (draws * reached[:, -1])[:, None]).argmax(axis=1), np.int64)


def pick_columns(weights_nk: Floats, draws_nk: Floats, count: int) -> NDArray[np.int64]:
    """`count` columns per row [n, count], by weight and without repeats: the largest u^(1/w) (Efraimidis and Spirakis, 2006).

    A row with fewer columns of weight begins again with its first.
    """
    with np.errstate(divide="ignore"):
        keys = np.where(weights_nk > 0, np.log(draws_nk) / np.maximum(weights_nk, 1e-300), -np.inf)
    keys = np.where((weights_nk > 0) & ~np.isfinite(keys), -np.finfo(np.float64).max, keys)  # a draw of exactly 0
    ranked = np.argsort(-keys, axis=1, kind="stable")
    there = np.maximum((weights_nk > 0).sum(axis=1), 1)
    return np.take_along_axis(ranked, np.arange(count)[None] % there[:, None], axis=1).astype(np.int64)

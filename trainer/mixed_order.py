"""The order over several shard sets with a weight each: arithmetic, like `trainer.order`.

Set s has n_s trainable samples, all sets together n, and n positions are an epoch, as without weights. In each the set gets

    m_s = n w_s / sum w,   rounded so that they add up to n (largest remainder)

of them, strewn over the epoch by a keyed permutation. Its samples come in rounds: visit q = epoch m_s + j of set s (j = 0 .. m_s - 1) is
the (q mod n_s)-th of its round q // n_s, and each round visits every sample of the set once, in an order of its own. So a set with
twice its share is seen twice per epoch, one with half its share once in two epochs, and no sample is ever two visits ahead of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.order import ORDER, SET_ROUND, Ints, SampleOrder, hashed, permute


class Part(NamedTuple):
    """One set of the order. first, samples: its rows among all trainable samples; visits: its positions in an epoch."""

    first: int
    samples: int
    visits: int


def split_visits(samples: Sequence[int], weights: Sequence[float]) -> list[int]:
    """m_s of each set for its number of samples: shares of their sum in proportion to the weights (> 0)."""
    total, whole = sum(samples), sum(weights)
    exact = [total * weight / whole for weight in weights]
    visits = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda s: (visits[s] - exact[s], s))
    for s in by_remainder[: total - sum(visits)]:
        visits[s] += 1
    return visits


def parts_of(samples: Ints, set_sizes: Sequence[int], weights: Sequence[float]) -> list[Part]:
    """The parts of an order over `samples` (rows counted through all sets, ascending) of sets with so many rows each.

    weights empty: every sample once per epoch. ValueError where a set's weight gives it no visit.
    """
    counts = np.diff(np.searchsorted(samples, np.cumsum([0, *set_sizes]))).tolist()
    visits = split_visits(counts, weights) if weights else counts
    for number, (count, visited) in enumerate(zip(counts, visits, strict=True)):
        if count and not visited:
            raise ValueError(
                f"data.weights gives set {number + 1} of {len(counts)} less than one of the {sum(counts)} visits of an epoch: "
                "raise its weight, or leave the set out"
            )
    return [
        Part(int(first), count, visited)
        for first, count, visited in zip(np.cumsum([0, *counts]), counts, visits, strict=False)
    ]


class MixedOrder(SampleOrder):
    """`set_sizes`: rows of the mask that each set has, set after set. An epoch has as many positions as without weights."""

    def __init__(
        self,
        trainable_mask: NDArray[np.bool_],
        *,
        seed: int,
        set_sizes: Sequence[int],
        weights: Sequence[float],
        columns: Sequence[int] | None = None,
    ) -> None:
        super().__init__(trainable_mask, seed=seed, columns=columns)
        self.parts = parts_of(self.samples, set_sizes, weights)

    def rows(self, epochs: Ints, ranks: Ints) -> Ints:
        strewn = permute(ranks, len(self), hashed(self.seed, ORDER, epochs))
        rows, begin = np.empty_like(strewn), 0
        for number, part in enumerate(self.parts):
            mine = (strewn >= begin) & (strewn < begin + part.visits)
            visits = epochs[mine] * part.visits + strewn[mine] - begin
            rounds, places = np.divmod(visits, max(part.samples, 1))
            rows[mine] = part.first + permute(places, part.samples, hashed(self.seed, SET_ROUND, number, rounds))
            begin += part.visits
        return rows

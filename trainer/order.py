"""Which sample comes n-th and which neighbour it is paired with: arithmetic, no state.

Position p = 0, 1, 2, ... counts samples over the whole run. Epoch p // n visits every trainable sample once in an order
that is a keyed permutation (a Feistel network over the index, walked until it lands inside), so nothing is stored,
nothing is shuffled in memory and any position can be asked for at once. All other draws are hashes of
(seed, purpose, position); where the two views of a sample lie is drawn so in `trainer.views`. Worker count, rank count and
interruptions therefore cannot change what is seen: resume is one integer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.preference import Preference, pick_column, pick_columns

Ints = NDArray[np.int64]
_U64 = np.uint64
_GOLDEN = _U64(0x9E3779B97F4A7C15)
_FEISTEL_ROUNDS = 8
_LEAST_HALF_BITS = 4  # halves of fewer bits have too few round functions for all orders to be equally likely
# Purposes keep the streams of one seed apart.
ORDER, _NEIGHBOUR, VIEWS, SET_ROUND, BLOCKS, WINDOW, _SAMPLE, _NEIGHBOURS = 1, 2, 3, 4, 5, 6, 7, 8


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The splitmix64 finaliser: a bijection on 64 bits whose output looks random for counters."""
    x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
    return x ^ (x >> _U64(31))


def hashed(*words: Ints | int) -> NDArray[np.uint64]:
    """64 bits per element from a sequence of integers (arrays broadcast against each other)."""
    state = np.zeros(1, _U64)
    for word in words:
        state = _mix(state + _GOLDEN + _mix(np.atleast_1d(np.asarray(word, np.int64)).astype(_U64) + _GOLDEN))
    return state


def uniforms(seed: int, purpose: int, positions: Ints, lanes: int) -> NDArray[np.float64]:
    """Uniform draws on [0, 1), shape [len(positions), lanes]: a pure function of its arguments."""
    bits = hashed(seed, purpose, positions[:, None], np.arange(lanes)[None, :])
    return (bits >> _U64(11)).astype(np.float64) * 2.0**-53


def permute(ranks: Ints, n: int, keys: NDArray[np.uint64]) -> Ints:
    """Image of `ranks` in [0, n) under the permutation of [0, n) named by `keys` (one key per element, or one for all)."""
    half_bits = max(_LEAST_HALF_BITS, ((n - 1).bit_length() + 1) // 2)
    shift, mask = _U64(half_bits), _U64((1 << half_bits) - 1)
    out = np.asarray(ranks, np.int64).astype(_U64)
    keys = np.broadcast_to(keys, len(out))
    walking = np.ones(len(out), bool)
    while walking.any():  # a cycle comes back inside, on average after domain / n turns: at most 4 beyond tiny sets
        left, right = out[walking] >> shift, out[walking] & mask
        for number in range(_FEISTEL_ROUNDS):
            left, right = right, left ^ (_mix(keys[walking] + _U64(number) + right) & mask)
        out[walking] = (left << shift) | right
        walking = out >= _U64(n)
    return out.astype(np.int64)


class Visits(NamedTuple):
    """Per position: row in the index and column of its neighbour in the manifest's offsets."""

    sample: Ints
    neighbour: Ints


class SampleOrder:
    """The run's sequence of (sample, neighbour), from the index alone.

    `trainable_mask` is bool [samples, K]: which neighbours' flow may be trained on. `columns` restricts K further.
    Samples without any are left out; `len()` is the number that remains, which is one epoch. `preference`, over `samples`: which
    samples and neighbours come more often than others (None: all alike).
    """

    preference: Preference | None = None

    def __init__(self, trainable_mask: NDArray[np.bool_], *, seed: int, columns: Sequence[int] | None = None) -> None:
        mask = np.asarray(trainable_mask, bool).copy()
        assert mask.ndim == 2, mask.shape
        if columns is not None:
            mask[:, [k for k in range(mask.shape[1]) if k not in columns]] = False
        self.seed = seed
        self.samples = np.flatnonzero(mask.any(axis=1))
        self._mask = mask[self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def rows(self, epochs: Ints, ranks: Ints) -> Ints:
        """Which of `samples` comes at each rank in [0, n) of each epoch."""
        return permute(ranks, len(self), hashed(self.seed, ORDER, epochs))

    def owners(self, positions: Ints, count: int) -> Ints | None:
        """Which of `count` readers had best read each position; None where it makes no difference."""
        return None

    def blocks_ahead(self, positions: Ints) -> Ints | None:
        """Numbers of the blocks that are read around these positions and soon after; None where an order has no blocks."""
        return None

    def visits(self, positions: Ints) -> Visits:
        """What is seen at these positions of the run (any int64 >= 0). Neighbours are uniform among trainable ones, or by the
        preference."""
        positions = np.asarray(positions, np.int64)
        rows = self._preferred(positions)
        allowed, draws = self._mask[rows], uniforms(self.seed, _NEIGHBOUR, positions, 1)[:, 0]
        if self.preference is not None:
            return Visits(self.samples[rows], pick_column(self.preference.columns(rows, allowed), draws))
        pick = np.floor(draws * allowed.sum(axis=1)).astype(np.int64)
        neighbour = (np.cumsum(allowed, axis=1) > pick[:, None]).argmax(axis=1)
        return Visits(self.samples[rows], neighbour.astype(np.int64))

    def several(self, positions: Ints, count: int) -> Visits:
        """As `visits`, with `count` neighbours of every sample, [n, count]: different ones where it has so many, else repeated."""
        positions = np.asarray(positions, np.int64)
        rows = self._preferred(positions)
        allowed = self._mask[rows]
        weights = (self.preference or Preference()).columns(rows, allowed)
        draws = uniforms(self.seed, _NEIGHBOURS, positions, allowed.shape[1])
        return Visits(self.samples[rows], pick_columns(weights, draws, count))

    def _preferred(self, positions: Ints) -> Ints:
        rows = self.rows(*np.divmod(positions, len(self)))
        if self.preference is None:
            return rows
        return self.preference.rows(rows, uniforms(self.seed, _SAMPLE, positions, 1)[:, 0])


def batch_positions(step: int, batch_size: int, *, rank: int = 0, ranks: int = 1) -> Ints:
    """Positions of rank `rank`'s slice of global batch `step`: the global batch does not depend on the rank count."""
    if batch_size % ranks:
        raise ValueError(f"batch size {batch_size} cannot be shared by {ranks} ranks: choose a multiple of {ranks}")
    share = batch_size // ranks
    return np.arange(share, dtype=np.int64) + (step * batch_size + rank * share)

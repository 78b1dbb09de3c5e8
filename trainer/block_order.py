"""The order for storage that wants long reads: blocks of consecutive samples, shuffled inside windows of blocks.

    epoch      the blocks in a keyed order (of several sets: each set's share of its own rounds, see `trainer.mixed_order`)
    window     `window_blocks` consecutive blocks of that order; its samples in a keyed order

Every sample still comes once per epoch (or by its set's weight), and a position's sample is still a pure function of (seed, epoch,
rank). Of an epoch the table of its blocks is kept: 24 bytes a block. Readers need the blocks of one window, and those of the next
while they read the last of it.

A set's round is its blocks in a keyed order; an epoch takes m_s of the samples so lined up. Where m_s is not the size of the
set, a block is cut at the end of an epoch and read in two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.mixed_order import Part, parts_of
from trainer.order import BLOCKS, ORDER, WINDOW, Ints, SampleOrder, hashed, permute


class Epoch(NamedTuple):
    """The pieces of an epoch as they are read: number of the block, first row, and how many samples lie before each piece
    (one entry more than pieces)."""

    block: Ints
    first: Ints
    before: Ints


class BlockOrder(SampleOrder):
    """`blocks`: number of each sample's block, ascending through all sets; `set_sizes`, `weights` as in `mixed_order`."""

    def __init__(
        self,
        trainable_mask: NDArray[np.bool_],
        *,
        seed: int,
        blocks: Ints,
        window_blocks: int,
        set_sizes: Sequence[int],
        weights: Sequence[float] = (),
        columns: Sequence[int] | None = None,
    ) -> None:
        super().__init__(trainable_mask, seed=seed, columns=columns)
        self.window_blocks = window_blocks
        self.parts = parts_of(self.samples, set_sizes, weights)
        numbers = blocks[self.samples]
        assert (np.diff(numbers) >= 0).all()
        self._first = np.flatnonzero(np.diff(numbers, prepend=-1))  # rows at which blocks begin
        self._length = np.diff(self._first, append=len(numbers))
        self._number = numbers[self._first]
        self._epochs: dict[int, Epoch] = {}
        self._last: tuple[bytes, Ints] | None = None

    def rows(self, epochs: Ints, ranks: Ints) -> Ints:
        asked = epochs.tobytes() + ranks.tobytes()
        if (
            self._last is None or self._last[0] != asked
        ):  # a reader asks for a batch twice: which are mine, and what they are
            self._last = asked, self._found(epochs, ranks)
        return self._last[1]

    def _found(self, epochs: Ints, ranks: Ints) -> Ints:
        rows = np.empty(len(ranks), np.int64)
        for epoch, window, here in self._windows(epochs, ranks):
            table = self.epoch(epoch)
            start, size = self._extent(table, window)
            shuffled = start + permute(ranks[here] - start, size, hashed(self.seed, WINDOW, epoch, window))
            piece = np.searchsorted(table.before, shuffled, side="right") - 1
            rows[here] = table.first[piece] + shuffled - table.before[piece]
        return rows

    def owners(self, positions: Ints, count: int) -> Ints:
        """A block has one reader, so that no two fetch it."""
        numbers = self._number[np.searchsorted(self._first, self._rows_at(positions), side="right") - 1]
        return numbers % count

    def blocks_ahead(self, positions: Ints) -> Ints:
        """Blocks of the windows that the positions lie in, then of the window after them, in the order of the epoch."""
        found = [(epoch, window) for epoch, window, _ in self._windows(*np.divmod(positions, len(self)))]
        epoch, window = found[-1]
        last = window + 1 == -(-len(self.epoch(epoch).block) // self.window_blocks)
        found.append((epoch + 1, 0) if last else (epoch, window + 1))
        return np.concatenate([self.epoch(e).block[self._pieces(w)] for e, w in found])

    def epoch(self, number: int) -> Epoch:
        """The table of an epoch; those of the last two that were asked for are kept."""
        if number not in self._epochs:
            while len(self._epochs) >= 2:
                del self._epochs[next(iter(self._epochs))]
            self._epochs[number] = self._table(number)
        return self._epochs[number]

    def _table(self, epoch: int) -> Epoch:
        taken = [self._share(epoch, number, part) for number, part in enumerate(self.parts) if part.visits]
        block, first, length = (np.concatenate(column) for column in zip(*taken, strict=True))
        order = permute(np.arange(len(block)), len(block), hashed(self.seed, ORDER, epoch))
        return Epoch(block[order], first[order], np.concatenate(([0], np.cumsum(length[order]))))

    def _share(self, epoch: int, number: int, part: Part) -> tuple[Ints, Ints, Ints]:
        """Block, first row and length of the pieces of set `number` that an epoch reads: samples epoch m_s .. (epoch + 1) m_s - 1
        of its rounds."""
        low, high = np.searchsorted(self._first, (part.first, part.first + part.samples)).tolist()
        begin, end = epoch * part.visits, (epoch + 1) * part.visits
        pieces: list[tuple[Ints, Ints, Ints]] = []
        for turn in range(begin // part.samples, -(-end // part.samples)):
            blocks = low + permute(np.arange(high - low), high - low, hashed(self.seed, BLOCKS, number, turn))
            after = turn * part.samples + np.cumsum(self._length[blocks])
            skipped = np.clip(begin - (after - self._length[blocks]), 0, self._length[blocks])
            length = np.minimum(after, end) - (after - self._length[blocks]) - skipped
            kept = length > 0
            pieces.append((self._number[blocks][kept], (self._first[blocks] + skipped)[kept], length[kept]))
        block, first, length = (np.concatenate(column) for column in zip(*pieces, strict=True))
        return block, first, length

    def _rows_at(self, positions: Ints) -> Ints:
        return self.rows(*np.divmod(np.asarray(positions, np.int64), len(self)))

    def _pieces(self, window: int) -> slice:
        return slice(window * self.window_blocks, (window + 1) * self.window_blocks)

    def _extent(self, table: Epoch, window: int) -> tuple[int, int]:
        """Rank of a window's first sample, and its number of samples."""
        low, high = table.before[self._pieces(window)][0], table.before[: (window + 1) * self.window_blocks + 1][-1]
        return int(low), int(high - low)

    def _windows(self, epochs: Ints, ranks: Ints) -> list[tuple[int, int, NDArray[np.bool_]]]:
        """(epoch, window, which positions lie there), in the order of the run."""
        found = []
        for epoch in np.unique(epochs).tolist():
            table, mine = self.epoch(epoch), epochs == epoch
            piece = np.searchsorted(table.before, ranks, side="right") - 1
            windows = np.where(mine, piece // self.window_blocks, -1)
            found += [(epoch, window, windows == window) for window in np.unique(windows[mine]).tolist()]
        return found

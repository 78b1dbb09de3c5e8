"""One batch of decoded samples in shared memory: what it holds, how it is laid out, how its rows are filled.

A slot holds one batch: the members of the samples that the training objective asked for (uint8 frames, int16 flow, ...).
It lives in anonymous shared memory made before the loader's workers are forked. `trainer.loader` decides who fills which rows
of which slot, and when.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from common.command import PlainError
from shards.reader import SampleError
from shards.sample import Buffers, Member
from trainer.order import Ints, SampleOrder, Visits, batch_positions

MAX_REPLACEMENTS = 16  # unreadable samples in a row before a position is given up
FRAME_AND_FLOW: frozenset[Member] = frozenset({"frame", "flow"})


class LoaderError(PlainError):
    """A worker died, stopped answering or failed in a way that is no fault of a single sample."""


class SampleSource(Protocol):
    """The part of `shards.reader.ShardSet` used here: decode the members of sample i, neighbour k, for which there is a
    buffer, and return the quantum of its flow in pixels. SampleError where it is damaged."""

    def read_into(self, i: int, k: int, out: Buffers, /) -> float: ...


@runtime_checkable
class ReadsAhead(Protocol):
    """A source that can fetch blocks of samples before they are read."""

    def expect(self, blocks: Ints, /) -> None: ...


class Failure(NamedTuple):
    """A sample that could not be read: where in the run, row in the index, neighbour, and why."""

    position: int
    sample: int
    neighbour: int
    reason: str


@dataclass(frozen=True)
class Plan:
    """What makes the batches: the order, the (global) batch size and this rank's share, the sizes in the set, the members
    that are read of each sample (the frame always), the number of neighbours that they are read for."""

    order: SampleOrder
    batch_size: int
    image_size: int
    flow_size: int
    rank: int = 0
    ranks: int = 1
    members: frozenset[Member] = FRAME_AND_FLOW
    neighbours: int = 1

    def __post_init__(self) -> None:
        assert "frame" in self.members, self.members

    def positions(self, step: int) -> Ints:
        """Positions of the samples of batch `step` on this rank."""
        return batch_positions(step, self.batch_size, rank=self.rank, ranks=self.ranks)

    def visits(self, positions: Ints) -> Visits:
        """What is read at these positions; with several neighbours the second array is [n, K]."""
        return self.order.visits(positions) if self.neighbours == 1 else self.order.several(positions, self.neighbours)

    def rows(self, step: int, number: int, count: int) -> Ints:
        """Rows of batch `step` that reader `number` of `count` fills; together they fill every row once."""
        positions = self.positions(step)
        owners = self.order.owners(positions, count)
        return np.arange(number, len(positions), count) if owners is None else np.flatnonzero(owners == number)

    def announce(self, source: SampleSource, step: int, number: int, count: int) -> None:
        """Tell a source in remote storage which blocks reader `number` of `count` needs now and next."""
        if isinstance(source, ReadsAhead):
            blocks = self.order.blocks_ahead(self.positions(step))
            if blocks is not None:
                source.expect(blocks[blocks % count == number])


@dataclass(frozen=True)
class Batch:
    """One batch, as views into a slot: valid until the loader is asked for the next one.

    images_bhwc uint8 [b, S, S, 3]; flow_b2hw int16 [b, 2, s, s] in units of quantum_px float32 [b]; neighbours_bhwc like
    images_bhwc; confidence_bhw uint8 [b, s, s]; None where the plan does not ask for them. sample and neighbour int64 [b]
    are rows of the index and columns of the offsets; positions int64 [b] count samples over the run.
    With K > 1 neighbours of each sample all but images, sample and positions have a second axis for them: [b, K, ...].
    """

    step: int
    positions: Ints
    sample: Ints
    neighbour: Ints
    images_bhwc: NDArray[np.uint8]
    quantum_px: NDArray[np.float32]
    flow_b2hw: NDArray[np.int16] | None = None
    neighbours_bhwc: NDArray[np.uint8] | None = None
    confidence_bhw: NDArray[np.uint8] | None = None
    failures: list[Failure] = field(default_factory=list)

    def buffers(self, row: int) -> Buffers:
        """Where the members of one row are decoded to."""
        members = (self.flow_b2hw, self.neighbours_bhwc, self.confidence_bhw)
        return Buffers(self.images_bhwc[row], *(None if array is None else array[row] for array in members))

    def buffers_of(self, row: int, turn: int) -> Buffers:
        """The same for neighbour number `turn` of one row where there are several; the frame comes with the first."""
        members = (self.flow_b2hw, self.neighbours_bhwc, self.confidence_bhw)
        frame = self.images_bhwc[row] if turn == 0 else None
        return Buffers(frame, *(None if array is None else array[row, turn] for array in members))


class Slots:
    """Shared memory for `count` batches. Copy-free across fork; freed by the system when the last process ends."""

    def __init__(self, plan: Plan, count: int) -> None:
        b = plan.batch_size // plan.ranks
        big, small = plan.image_size, plan.flow_size
        per_pair = (count, b) if plan.neighbours == 1 else (count, b, plan.neighbours)
        pixels: dict[Member, tuple[str, tuple[int, ...], Any]] = {
            "frame": ("images_bhwc", (count, b, big, big, 3), np.uint8),  # first: it begins where the memory does
            "flow": ("flow_b2hw", (*per_pair, 2, small, small), np.int16),
            "neighbour": ("neighbours_bhwc", (*per_pair, big, big, 3), np.uint8),
            "confidence": ("confidence_bhw", (*per_pair, small, small), np.uint8),
        }
        layout = [entry for member, entry in pixels.items() if member in plan.members]
        layout += [("sample", (count, b), np.int64), ("neighbour", per_pair, np.int64)]
        layout += [("quantum_px", per_pair, np.float32)]
        sizes = [int(np.prod(shape)) * np.dtype(kind).itemsize for _, shape, kind in layout]
        starts = np.cumsum([0, *(-(-size // 4096) * 4096 for size in sizes)])
        self.memory = mmap.mmap(-1, int(starts[-1]))
        self.count = count
        self.arrays: dict[str, NDArray[Any]] = {
            name: np.frombuffer(self.memory, kind, int(np.prod(shape)), int(start)).reshape(shape)
            for (name, shape, kind), start in zip(layout, starts, strict=False)
        }

    def batch(self, slot: int, step: int, positions: Ints, failures: list[Failure]) -> Batch:
        return Batch(step, positions, failures=failures, **{name: a[slot] for name, a in self.arrays.items()})


def fill_rows(source: SampleSource, plan: Plan, batch: Batch, rows: Ints | slice) -> list[Failure]:
    """Read the samples of `rows` of a batch into its arrays; returns what had to be replaced."""
    failures: list[Failure] = []
    visits = plan.visits(batch.positions)
    for row in np.arange(len(batch.positions))[rows].tolist():
        position, sample, neighbour = int(batch.positions[row]), visits.sample[row], visits.neighbour[row]
        for attempt in range(1, MAX_REPLACEMENTS + 1):
            turn = 0
            try:
                if plan.neighbours == 1:
                    batch.quantum_px[row] = source.read_into(int(sample), int(neighbour), batch.buffers(row))
                for turn in range(plan.neighbours if plan.neighbours > 1 else 0):
                    into = batch.buffers_of(row, turn)
                    batch.quantum_px[row, turn] = source.read_into(int(sample), int(neighbour[turn]), into)
                break
            except SampleError as error:
                failures.append(Failure(position, int(sample), int(np.atleast_1d(neighbour)[turn]), str(error)))
                substitute = plan.visits(np.array([position + attempt]))
                sample, neighbour = substitute.sample[0], substitute.neighbour[0]
        else:
            raise LoaderError(f"{MAX_REPLACEMENTS} samples in a row could not be read; the last: {failures[-1].reason}")
        batch.sample[row], batch.neighbour[row] = sample, neighbour
    return failures

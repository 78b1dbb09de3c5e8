"""How much may be under way at once: places of one size in an arena, and how many of them a job needs and may have."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from pipeline.extract.batches import MOST_PASSES
from pipeline.extract.runner import ChunkJob
from pipeline.video.decoder import layout_of

FRAMES_MOST_BYTES = 4 << 30
"""Of the arena of frames. Jobs of more passes than fit are made in blocks of fewer, which decodes their videos once per block."""
DEPTH = 2
"""Batches that a flow worker has at a time: one that it works on, and the next."""


class Places:
    """Equal places in an arena, the last freed first, so that the memory in use stays small."""

    def __init__(self, size: int, count: int) -> None:
        self.size, self.count = size, count
        self._free = deque(range(0, size * count, size))

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self, count: int) -> tuple[int, ...]:
        """Offsets of so many; there must be as many."""
        assert count <= len(self._free)
        return tuple(self._free.popleft() for _ in range(count))

    def give_back(self, offset: int) -> None:
        self._free.appendleft(offset)


@dataclass(frozen=True)
class Room:
    """What a job may take of the arena of frames."""

    window_bytes: int
    most_passes: int
    windows: int

    @classmethod
    def of(cls, job: ChunkJob, flow_workers: int, decoders: int) -> Room:
        """Two groups and one video per decoder, and what the flow workers have at hand."""
        size = layout_of(job.settings).size
        group = job.batch if job.together else 1
        at_hand = DEPTH * flow_workers * (job.batch if job.together else min(job.batch, len(job.passes)))
        per_pass = 2 * group + decoders
        passes = (FRAMES_MOST_BYTES // size - at_hand) // per_pass
        passes = min(max(1, passes), MOST_PASSES, len(job.passes))
        return cls(size, passes, at_hand + per_pass * passes)

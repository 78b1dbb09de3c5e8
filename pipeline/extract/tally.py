"""Running totals of one extraction: reports of videos come in, what the progress line says goes out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pipeline.extract.runner import StageLoad, VideoReport
from shards import schema


@dataclass
class Tally:
    """total: videos with something to do. windows: what they lack, one for each video and pass. lost: shards that had landed and are gone.

    newly_rejected: whether the last report rejected a video that had not been: of passes made in blocks, or a chunk that was tried again,
    a video is told of more than once.
    """

    total: int
    chunks: int
    windows: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    chunks_done: int = 0
    lost: int = 0
    load: StageLoad | None = None
    across_cuts: int = 0
    newly_rejected: bool = False
    windows_done: int = 0
    _rejected: set[str] = field(default_factory=set)
    _passes: dict[str, int] = field(default_factory=dict)
    """Passes of a video that have been told of, a bit for each."""

    def add(self, report: VideoReport) -> None:
        if report.video not in self._passes:
            self.across_cuts += report.across_cuts
        had = self._passes.get(report.video, 0)
        has = had | sum(1 << index for index in report.passes)
        self._passes[report.video] = has
        self.windows_done += has.bit_count() - had.bit_count()
        self.newly_rejected = report.status == schema.REJECTED and report.video not in self._rejected
        if self.newly_rejected:
            self._rejected.add(report.video)
            self.rejects[report.reason] += 1

    @property
    def videos_done(self) -> float:
        """In tenths: one of which a third of the passes is made counts a third, so that the time left is that of the windows left."""
        return 10 * self.total * self.windows_done // self.windows / 10 if self.windows else 0.0

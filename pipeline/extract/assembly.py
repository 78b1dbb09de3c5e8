"""The accounts of one job whose videos, batches and samples come and go in any order: what can run next, and what is whole.

Comes in: a video was decoded or refused, a window was encoded or failed. Goes out: batches as soon as all their videos have arrived,
and finished videos in the plan's order. Holds no pixels and knows no process, so it can be tried without any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.extract.batches import Place, batches, groups
from pipeline.extract.runner import ChunkJob
from pipeline.extract.stages import FLOW_FAILED, Encoded, Refused
from pipeline.video.messages import VideoFacts
from shards.writer import EncodedSample


@dataclass
class _Progress:
    """A video between decoding and writing."""

    began: float
    facts: VideoFacts | None = None
    open_windows: int = 0
    samples: dict[int, EncodedSample] = field(default_factory=dict)
    refused: tuple[str, str] | None = None

    @property
    def whole(self) -> bool:
        return self.open_windows == 0


class Assembly:
    """One job under way. Videos and passes are named by their index in the job."""

    def __init__(self, job: ChunkJob) -> None:
        self.job = job
        self._groups = list(groups(job))
        self._group_of = {video: number for number, group in enumerate(self._groups) for video in group}
        self._missing = [len(group) for group in self._groups]
        self._videos: dict[int, _Progress] = {}
        self._next = 0

    def decoded(self, video: int, began: float, facts: VideoFacts) -> list[list[Place]]:
        """A video's windows are there; the batches that can run now."""
        self._videos[video] = _Progress(began, facts, len(self.job.passes))
        return self._arrived(video)

    def refused(self, video: int, began: float, reason: str, detail: str) -> list[list[Place]]:
        """A video yields nothing; the batches that need not wait for it any more."""
        self._videos[video] = _Progress(began, refused=(reason, detail))
        return self._arrived(video)

    def _arrived(self, video: int) -> list[list[Place]]:
        number = self._group_of[video]
        self._missing[number] -= 1
        if self._missing[number]:
            return []
        group = self._groups[number]
        good = [video for video in group if self._videos[video].facts is not None]
        return list(batches(self.job, group, good))

    def encoded(self, place: Place, sample: EncodedSample) -> None:
        """A window is ready for its shard."""
        video = self._videos[place.video]
        video.open_windows -= 1
        video.samples[place.turn] = sample

    def failed(self, place: Place, detail: str) -> None:
        """The estimator cannot take this window, so its video yields nothing. What its batch holds stays as it is."""
        video = self._videos[place.video]
        video.open_windows -= 1
        video.refused = video.refused or (FLOW_FAILED, detail)

    def finished(self) -> Iterator[Encoded | Refused]:
        """Videos that are whole and whose turn it is."""
        while (video := self._videos.get(self._next)) is not None and video.whole:
            planned = self.job.videos[self._next]
            if video.refused is not None:
                yield Refused(planned, video.began, *video.refused)
            else:
                assert video.facts is not None
                samples = [video.samples[turn] for turn in range(len(self.job.passes))]
                yield Encoded(planned, video.began, video.facts, samples)
            del self._videos[self._next]
            self._next += 1

    @property
    def complete(self) -> bool:
        """Whether every video has come out of `finished`."""
        return self._next == len(self.job.videos)


def sample_bytes(samples: Sequence[EncodedSample]) -> int:
    """What encoded samples weigh in memory."""
    total = 0
    for sample in samples:
        total += len(sample.image) + sum(len(data) for data in sample.flows if data)
        total += sum(len(data) for data in sample.optional.values())
    return total

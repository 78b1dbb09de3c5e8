"""The seam between an extraction and whatever makes its chunks: jobs go in, events come out.

`run.extract` plans jobs and keeps the accounts; a `Runner` decides where and when jobs run. `local.LocalRunner` overlaps the stages of
many jobs in processes of this machine. A job alone is finished by `stages.run_job`, which any runner may call wherever the set's
directory and the videos can be seen: the bytes of a set depend on neither the runner nor the order in which chunks land.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from common.command import PlainError
from pipeline.extract.plan import PlannedVideo
from shards.schema import Settings
from shards.storage import StorageError


class ExtractionError(PlainError):
    """A set that could not be finished; what had landed before is safe."""


def disk_is_full(root: Path) -> str:
    """What a user is told when the set's disk is full, whoever met it first."""
    return (
        f"no space left on the device of {root}: free some and rerun the same command; chunks that have landed are safe"
    )


def storage_failed(error: StorageError, landed: str = "chunks") -> ExtractionError:
    """What a user is told when remote storage fails, whoever met it first. landed: what is safe, for people."""
    if error.refused:
        way_out = "renew the credential, or its rights,"
    elif error.missing:
        way_out = "look whether the address is right"
    else:
        way_out = "wait until the storage answers"
    return ExtractionError(
        f"{error.strerror}: {way_out} and run the same command again; {landed} that have landed are safe"
    )


@dataclass(frozen=True)
class ChunkJob:
    """All that making a chunk takes; can be pickled. batch: windows per call of the estimator. deadline_s: per video, decoding only.

    together: whether a call takes windows of several videos, as `batches` says; else it takes those of one video.
    """

    root: Path
    settings: Settings
    chunk: int
    passes: Sequence[int]
    videos: Sequence[PlannedVideo]
    batch: int
    deadline_s: float
    together: bool = False


@dataclass(frozen=True)
class VideoReport:
    """How one video ended. pairs: count by status over all its samples of these passes.

    across_cuts: anchors that were not to be drawn because their windows cross a shot cut. passes: those that it ended for; of more than
    are made at once, each block tells.
    """

    video: str
    status: str
    reason: str
    detail: str
    seconds: float
    pairs: Mapping[str, int]
    across_cuts: int = 0
    passes: Sequence[int] = ()


@dataclass(frozen=True)
class ChunkDone:
    """The chunk has landed."""

    chunk: int


@dataclass(frozen=True)
class ChunkFailed:
    """The chunk could not be made. message: one line for the user. trace: the traceback, where there is one."""

    chunk: int
    message: str
    trace: str = ""


@dataclass(frozen=True)
class StageLoad:
    """How the stages keep up with each other; told every few seconds by a runner whose stages overlap.

    flow_waits: share of the time since the last report in which flow workers had nothing to do, their mean. decoding_waits: share
    in which decoders had videos to decode and no room for their frames. for_flow, for_encoding: windows that are decoded and wait for
    flow; that have flow and wait to be encoded. for_writing: videos that are encoded and wait to be written.
    """

    flow_waits: float
    decoding_waits: float
    for_flow: int
    for_encoding: int
    for_writing: int


def loads_together(loads: Sequence[StageLoad]) -> StageLoad:
    """Of several engines: mean shares, sums of what waits."""
    return StageLoad(
        flow_waits=sum(load.flow_waits for load in loads) / len(loads),
        decoding_waits=sum(load.decoding_waits for load in loads) / len(loads),
        for_flow=sum(load.for_flow for load in loads),
        for_encoding=sum(load.for_encoding for load in loads),
        for_writing=sum(load.for_writing for load in loads),
    )


@dataclass(frozen=True)
class IndexBegun:
    """Chunks land no more; the tables and the manifest are written. samples: that the set holds at most."""

    samples: int


Event = VideoReport | ChunkDone | ChunkFailed | StageLoad | IndexBegun


class Runner(Protocol):
    """Makes chunks. Used as a context manager: leaving it ends whatever it has started, jobs at hand included."""

    def __enter__(self) -> Runner: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def prepare(self, jobs: int) -> None:
        """Get ready for so many jobs, as far as it takes to know that an estimator can be built.

        Called before anything of the set is written. Raises ExtractionError when jobs cannot be run at all.
        """
        ...

    def run(self, jobs: Sequence[ChunkJob], on_event: Callable[[Event], None]) -> None:
        """Make all chunks. Every job ends in one ChunkDone or ChunkFailed, told in the calling thread.

        What `on_event` raises ends the run.
        """
        ...

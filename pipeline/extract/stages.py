"""One chunk of videos → its shards, in three stages that know nothing of each other.

Where data comes from: a list of planned videos. Where it goes: one shard per pass, through ChunkWriter.

    decode     videos, one at a time, all passes ─▶ Decoded (or Refused)      owns a decoding process
    estimate   windows of several videos, up to `batch` ─▶ Estimated          owns an estimator and its device
    write      encode ─▶ ChunkWriter.add ─▶ commit                            owns the chunk on disk

Each stage is an iterator over the one before, so one chunk at a time runs in one process; what passes between them can be
pickled, and keeps the plan's order. A video is added whole or not at all, so what a set holds never depends on where a broken
file broke.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from common.memory import is_out_of_memory
from pipeline.extract.encode import encode_sample
from pipeline.extract.plan import PlannedVideo
from pipeline.extract.runner import ChunkDone, ChunkFailed, ChunkJob, VideoReport, disk_is_full
from pipeline.flow.estimator import FlowEstimator
from pipeline.video.decoder import DecodedAnchor, Decoder
from pipeline.video.messages import VideoFacts
from pipeline.video.rejects import Reject
from pipeline.window import WindowFlow
from shards import schema
from shards.files import full_disk
from shards.writer import ChunkWriter


@dataclass(frozen=True)
class Refused:
    """A video that yields nothing. began: when its decoding did, by time.perf_counter."""

    planned: PlannedVideo
    began: float
    reason: str
    detail: str


@dataclass(frozen=True)
class Decoded:
    """A video's windows, one per pass."""

    planned: PlannedVideo
    began: float
    facts: VideoFacts
    anchors: Sequence[DecodedAnchor]


@dataclass(frozen=True)
class Estimated:
    """A decoded video with the flow of each of its windows."""

    decoded: Decoded
    flows: Sequence[WindowFlow]


def run_job(
    job: ChunkJob, decoder: Decoder, estimator: FlowEstimator, report: Callable[[VideoReport], None]
) -> ChunkDone | ChunkFailed:
    """Make one chunk and say how that ended. No exception of a job gets out: the process that runs it must live on."""
    try:
        extract_chunk(job, decoder, estimator, report)
    except OSError as error:
        if full_disk(error):
            return ChunkFailed(job.chunk, disk_is_full(job.root))
        return _failed(job, error)
    except Exception as error:
        return _failed(job, error)
    return ChunkDone(job.chunk)


def _failed(job: ChunkJob, error: Exception) -> ChunkFailed:
    hint = "; use a smaller --batch or fewer --workers" if is_out_of_memory(error) else ""
    return ChunkFailed(job.chunk, f"chunk {job.chunk}: {type(error).__name__}: {error}{hint}", traceback.format_exc())


def extract_chunk(
    job: ChunkJob, decoder: Decoder, estimator: FlowEstimator, report: Callable[[VideoReport], None]
) -> None:
    """Make and commit the shards of one chunk. On any exception nothing of the chunk remains."""
    write(job, estimate(decode(job, decoder), estimator, job.batch), report)


def decode(job: ChunkJob, decoder: Decoder) -> Iterator[Decoded | Refused]:
    """The videos of a chunk in the plan's order."""
    for planned in job.videos:
        began = time.perf_counter()
        try:
            video = decoder.windows(planned.video, job.passes, job.settings, deadline_s=job.deadline_s)
            anchors = list(video.anchors)
        except Reject as reject:
            yield Refused(planned, began, reject.reason, reject.detail)
        else:
            yield Decoded(planned, began, video.facts, anchors)


def estimate(
    videos: Iterable[Decoded | Refused], estimator: FlowEstimator, batch: int
) -> Iterator[Estimated | Refused]:
    """Flow of every window, `batch` windows per call, of several videos where one has fewer passes than that. Order is kept."""
    waiting: list[Decoded] = []
    for video in videos:
        if isinstance(video, Refused):
            # Earlier videos first: rows and members follow the plan's order whatever the batch size is.
            yield from _with_flow(waiting, estimator, batch)
            waiting = []
            yield video
            continue
        waiting.append(video)
        if sum(len(decoded.anchors) for decoded in waiting) >= batch:
            yield from _with_flow(waiting, estimator, batch)
            waiting = []
    yield from _with_flow(waiting, estimator, batch)


def _with_flow(videos: Sequence[Decoded], estimator: FlowEstimator, batch: int) -> Iterator[Estimated]:
    windows = [anchor.window for video in videos for anchor in video.anchors]
    flows: list[WindowFlow] = []
    for start in range(0, len(windows), batch):
        flows += estimator.estimate(windows[start : start + batch])
    assert len(flows) == len(windows), (len(flows), len(windows))
    first = 0
    for video in videos:
        yield Estimated(video, flows[first : first + len(video.anchors)])
        first += len(video.anchors)


def write(job: ChunkJob, videos: Iterable[Estimated | Refused], report: Callable[[VideoReport], None]) -> None:
    """Encode every sample into the chunk's shards and commit them; tells of every video as it ends.

    On any exception, also one of an earlier stage, nothing of the chunk remains.
    """
    writer = ChunkWriter(job.root, job.settings, job.chunk, job.passes)
    rows: list[dict[str, Any]] = []  # of videos.parquet, in its own names
    try:
        for video in videos:
            if isinstance(video, Estimated):
                rows.append(_store(job, video, writer, report))
                continue
            planned, seconds = video.planned, time.perf_counter() - video.began
            rows.append(_rejected_row(planned, video.reason, _portable(planned, video.detail)))
            report(VideoReport(planned.video.id, schema.REJECTED, video.reason, video.detail, seconds, {}))
        writer.commit(rows)
    except BaseException:
        writer.abort()
        raise


def _store(
    job: ChunkJob, video: Estimated, writer: ChunkWriter, report: Callable[[VideoReport], None]
) -> dict[str, Any]:
    planned, anchors, facts = video.decoded.planned, video.decoded.anchors, video.decoded.facts
    pairs = dict.fromkeys(schema.PAIR_STATUS, 0)
    stored = 0
    for anchor, flow in zip(anchors, video.flows, strict=True):
        sample = encode_sample(anchor, flow, job.settings)
        for status in sample.pair_columns["status"]:
            pairs[status] += 1
        if any(data is not None for data in sample.flows):
            writer.add(anchor.pass_index, planned.position, sample)
            stored += 1
    seconds = time.perf_counter() - video.decoded.began
    if not stored:
        detail = f"no usable flow in any of {len(anchors)} windows: {pairs}"
        report(VideoReport(planned.video.id, schema.REJECTED, "no_flow", detail, seconds, pairs))
        return _rejected_row(planned, "no_flow", detail)
    report(VideoReport(planned.video.id, schema.OK, "", "", seconds, pairs))
    row = {"video": planned.video.id, "status": schema.OK, "reason": "", "detail": ""}
    return {
        **row,
        "frames": facts.n_frames,
        "fps": facts.fps,
        "width": facts.width,
        "height": facts.height,
        "engine": facts.engine,
    }


def _portable(planned: PlannedVideo, detail: str) -> str:
    """The detail as the set keeps it: a set must not depend on where the videos were mounted."""
    return detail.replace(str(planned.video.path), planned.path)


def _rejected_row(planned: PlannedVideo, reason: str, detail: str) -> dict[str, Any]:
    return {"video": planned.video.id, "status": schema.REJECTED, "reason": reason, "detail": detail}

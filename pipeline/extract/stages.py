"""One chunk of videos → its shards, in four stages that know nothing of each other.

Where data comes from: a list of planned videos. Where it goes: one shard per pass, through ChunkWriter.

    decode     videos, one at a time, all passes ─▶ Decoded (or Refused)      owns a decoding process
    estimate   batches of windows, as `batches` puts them together ─▶ Estimated (or Refused)      owns an estimator
    encode     samples of one video ─▶ Encoded
    write      ChunkWriter.add ─▶ commit                                      owns the chunk on disk

Here each stage is an iterator over the one before, so one chunk at a time runs in one process. `local` runs the same stages beside each
other. A video is added whole or not at all, so what a set holds never depends on where a broken file broke.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.memory import is_out_of_memory
from common.printable import printable_line
from pipeline.extract.batches import Place, batches, blocks, groups
from pipeline.extract.blame import CarefulEstimator, FlowFailure
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
from shards.writer import ChunkWriter, EncodedSample

TRIED_AGAIN = ("timeout", "decoder_crashed")
"""Reasons that may be the machine's fault and not the file's: such a video gets a second try, in a fresh process."""

MEMORY_HINT = "; use a smaller --batch or fewer --workers"

FLOW_FAILED = "flow_failed"
"""The reason of a video that the estimator raises an exception for."""

NO_FLOW = "no_flow"
"""The reason of a video none of whose pairs may be stored."""


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


@dataclass(frozen=True)
class Encoded:
    """A video's samples, one per pass of its job, in that order."""

    planned: PlannedVideo
    began: float
    facts: VideoFacts
    samples: Sequence[EncodedSample]


def run_job(
    job: ChunkJob, decoder: Decoder, estimator: FlowEstimator, report: Callable[[VideoReport], None]
) -> ChunkDone | ChunkFailed:
    """Make one chunk and say how that ended. No exception of a job gets out: the process that runs it must live on."""
    try:
        for block in blocks(job):
            extract_chunk(block, decoder, estimator, report)
    except Exception as error:
        return failure(job, error)
    return ChunkDone(job.chunk)


def failure(job: ChunkJob, error: Exception) -> ChunkFailed:
    """What stopped a chunk, for the user."""
    if isinstance(error, OSError) and full_disk(error):
        return ChunkFailed(job.chunk, disk_is_full(job.root))
    trace = "".join(traceback.format_exception(error))
    return ChunkFailed(job.chunk, failure_message(job.chunk, error), trace)


def failure_message(chunk: int, error: Exception) -> str:
    """One line."""
    hint = MEMORY_HINT if is_out_of_memory(error) else ""
    return f"chunk {chunk}: {type(error).__name__}: {error}{hint}"


def extract_chunk(
    job: ChunkJob, decoder: Decoder, estimator: FlowEstimator, report: Callable[[VideoReport], None]
) -> None:
    """Make and commit the shards of one chunk. On any exception nothing of the chunk remains."""
    estimated = estimate(job, decode(job, decoder), estimator)
    write(job, (video if isinstance(video, Refused) else encode(job, video) for video in estimated), report)


def decode(job: ChunkJob, decoder: Decoder) -> Iterator[Decoded | Refused]:
    """The videos of a chunk in the plan's order."""
    for planned in job.videos:
        began = time.perf_counter()
        try:
            yield _decode_one(job, planned, decoder, began)
        except Reject as first:
            if first.reason not in TRIED_AGAIN:
                yield Refused(planned, began, first.reason, first.detail)
                continue
            try:
                yield _decode_one(job, planned, decoder, began)  # the decoder has ended the process that failed
            except Reject as again:
                yield Refused(planned, began, again.reason, again.detail)


def _decode_one(job: ChunkJob, planned: PlannedVideo, decoder: Decoder, began: float) -> Decoded:
    video = decoder.windows(planned.video, job.passes, job.settings, deadline_s=job.deadline_s)
    return Decoded(planned, began, video.facts, list(video.anchors))


def estimate(
    job: ChunkJob, videos: Iterable[Decoded | Refused], estimator: FlowEstimator
) -> Iterator[Estimated | Refused]:
    """Flow of every window, in the batches of the job. Order is kept."""
    stream, careful = iter(videos), CarefulEstimator(estimator)
    for group in groups(job):
        arrived = {video: next(stream) for video in group}
        decoded = {video: found for video, found in arrived.items() if isinstance(found, Decoded)}
        flows: dict[Place, WindowFlow] = {}
        faults: dict[int, str] = {}
        for batch in batches(job, group, tuple(decoded)):
            answers = careful.estimate([decoded[place.video].anchors[place.turn].window for place in batch])
            for place, answer in zip(batch, answers, strict=True):
                if isinstance(answer, FlowFailure):
                    faults.setdefault(place.video, answer.detail)
                else:
                    flows[place] = answer
        for video, found in arrived.items():
            if isinstance(found, Refused):
                yield found
            elif video in faults:
                yield Refused(found.planned, found.began, FLOW_FAILED, faults[video])
            else:
                yield Estimated(found, [flows.pop(Place(video, turn)) for turn in range(len(job.passes))])


def encode(job: ChunkJob, video: Estimated) -> Encoded:
    """Every window of a video."""
    decoded = video.decoded
    pairs = zip(decoded.anchors, video.flows, strict=True)
    samples = [encode_sample(anchor, flow, job.settings) for anchor, flow in pairs]
    return Encoded(decoded.planned, decoded.began, decoded.facts, samples)


def write(job: ChunkJob, videos: Iterable[Encoded | Refused], report: Callable[[VideoReport], None]) -> None:
    """Put every sample into the chunk's shards and commit them; tells of every video as it ends.

    On any exception, also one of an earlier stage, nothing of the chunk remains.
    """
    writer = ChunkWriter(job.root, job.settings, job.chunk, job.passes)
    rows: list[dict[str, Any]] = []  # of videos.parquet, in its own names
    try:
        for video in videos:
            if isinstance(video, Encoded):
                rows.append(_store(job, video, writer, report))
            else:
                rows.append(_refuse(job, video.planned, video.began, video.reason, video.detail, {}, report))
        writer.commit(rows)
    except BaseException:
        writer.abort()
        raise


def _store(job: ChunkJob, video: Encoded, writer: ChunkWriter, report: Callable[[VideoReport], None]) -> dict[str, Any]:
    planned, facts = video.planned, video.facts
    pairs = dict.fromkeys(schema.PAIR_STATUS, 0)
    stored = 0
    for pass_index, sample in zip(job.passes, video.samples, strict=True):
        for status in sample.pair_columns["status"]:
            pairs[status] += 1
        if any(data is not None for data in sample.flows):
            writer.add(pass_index, planned.position, sample)
            stored += 1
    if not stored:
        detail = f"no usable flow in any of {len(video.samples)} windows: {pairs}"
        return _refuse(job, planned, video.began, NO_FLOW, detail, pairs, report)
    seconds = time.perf_counter() - video.began
    valid = facts.n_anchors + facts.n_anchors_across
    detail = (
        f"{facts.n_cuts} cuts; windows of {facts.n_anchors_across} of {valid} anchors cross them"
        if facts.n_cuts
        else ""
    )
    report(VideoReport(planned.video.id, schema.OK, "", detail, seconds, pairs, facts.n_anchors_across, job.passes))
    row: dict[str, Any] = {"video": planned.video.id, "status": schema.OK, "reason": "", "detail": detail}
    if job.settings.cut_detector:
        row["across_cuts"] = facts.n_anchors_across  # for the manifest's counts; no column of videos.parquet
    return {
        **row,
        "frames": facts.n_frames,
        "fps": facts.fps,
        "width": facts.width,
        "height": facts.height,
        "engine": facts.engine,
    }


def _refuse(
    job: ChunkJob,
    planned: PlannedVideo,
    began: float,
    reason: str,
    detail: str,
    pairs: Mapping[str, int],
    report: Callable[[VideoReport], None],
) -> dict[str, Any]:
    """Tell of a video that yields nothing; its row. The set keeps the detail without the place where the videos were mounted."""
    seconds = time.perf_counter() - began
    report(VideoReport(planned.video.id, schema.REJECTED, reason, detail, seconds, pairs, passes=job.passes))
    portable = printable_line(detail.replace(str(planned.video.path), planned.path))
    return {"video": planned.video.id, "status": schema.REJECTED, "reason": reason, "detail": portable}

"""One chunk of videos → its shards: decode, estimate, encode, commit.

Where data comes from: a list of planned videos. Where it goes: one shard per pass, through ChunkWriter. Runs inside
a worker process; tells the parent about every video as it ends.

    Decoder (own child process) ─▶ windows of one video, all passes ─┐
    windows of several videos, up to `batch` ─▶ estimator ─▶ flow ─▶ encode ─▶ ChunkWriter.add

A video is added whole or not at all, so what a set holds never depends on where a broken file broke.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from pipeline.extract.plan import PlannedVideo
from pipeline.flow.estimator import FlowEstimator
from pipeline.video.decoder import DecodedAnchor, DecodedVideo, Decoder
from pipeline.video.rejects import Reject
from pipeline.window import WindowFlow
from shards import schema
from shards.codec import FlowRangeError, channel_std_px, encode_flow, pair_exponent
from shards.schema import Settings
from shards.writer import ChunkWriter, EncodedSample


@dataclass(frozen=True)
class ChunkJob:
    """What a worker needs to make a chunk. batch: windows per call of the estimator. deadline_s: per video, decoding only."""

    root: Path
    settings: Settings
    chunk: int
    passes: Sequence[int]
    videos: Sequence[PlannedVideo]
    batch: int
    deadline_s: float


@dataclass(frozen=True)
class VideoReport:
    """How one video ended. pairs: count by status over all its samples of this run."""

    video: str
    status: str
    reason: str
    detail: str
    seconds: float
    pairs: Mapping[str, int]


@dataclass
class _Pending:
    """A decoded video whose windows wait for flow."""

    planned: PlannedVideo
    info: DecodedVideo
    anchors: list[DecodedAnchor]
    flows: list[WindowFlow] = field(default_factory=list)
    began: float = 0.0


def extract_chunk(
    job: ChunkJob, decoder: Decoder, estimator: FlowEstimator, report: Callable[[VideoReport], None]
) -> None:
    """Make and commit the shards of one chunk. On any exception nothing of the chunk remains."""
    writer = ChunkWriter(job.root, job.settings, job.chunk, job.passes)
    rows: list[dict[str, Any]] = []
    try:
        waiting: list[_Pending] = []
        for planned in job.videos:
            began = time.perf_counter()
            try:
                info, anchors = _decode(job, decoder, planned)
            except Reject as reject:
                # Earlier videos first: rows and members follow the plan's order whatever the batch size is.
                _flush(job, waiting, estimator, writer, rows, report)
                rows.append(_rejected_row(planned, reject.reason, _portable(planned, reject.detail)))
                report(
                    VideoReport(
                        planned.video.id, schema.REJECTED, reject.reason, reject.detail, time.perf_counter() - began, {}
                    )
                )
                continue
            waiting.append(_Pending(planned, info, anchors, began=began))
            if sum(len(p.anchors) for p in waiting) >= job.batch:
                _flush(job, waiting, estimator, writer, rows, report)
        _flush(job, waiting, estimator, writer, rows, report)
        writer.commit(rows)
    except BaseException:
        writer.abort()
        raise


def _decode(job: ChunkJob, decoder: Decoder, planned: PlannedVideo) -> tuple[DecodedVideo, list[DecodedAnchor]]:
    decoded = decoder.windows(planned.video, job.passes, job.settings, deadline_s=job.deadline_s)
    return decoded, list(decoded.anchors)


def _flush(
    job: ChunkJob,
    waiting: list[_Pending],
    estimator: FlowEstimator,
    writer: ChunkWriter,
    rows: list[dict[str, Any]],
    report: Callable[[VideoReport], None],
) -> None:
    windows = [anchor.window for pending in waiting for anchor in pending.anchors]
    for start in range(0, len(windows), job.batch):
        for flow in estimator.estimate(windows[start : start + job.batch]):
            owner = next(p for p in waiting if len(p.flows) < len(p.anchors))
            owner.flows.append(flow)
    for pending in waiting:
        rows.append(_store(job, pending, writer, report))
    waiting.clear()


def _store(
    job: ChunkJob, pending: _Pending, writer: ChunkWriter, report: Callable[[VideoReport], None]
) -> dict[str, Any]:
    planned, info = pending.planned, pending.info.facts
    pairs = dict.fromkeys(schema.PAIR_STATUS, 0)
    stored = 0
    for anchor, flow in zip(pending.anchors, pending.flows, strict=True):
        sample = encode_sample(anchor, flow, job.settings)
        for status in sample.pair_columns["status"]:
            pairs[status] += 1
        if any(data is not None for data in sample.flows):
            writer.add(anchor.pass_index, planned.position, sample)
            stored += 1
    seconds = time.perf_counter() - pending.began
    if not stored:
        detail = f"no usable flow in any of {len(pending.anchors)} windows: {pairs}"
        report(VideoReport(planned.video.id, schema.REJECTED, "no_flow", detail, seconds, pairs))
        return _rejected_row(planned, "no_flow", detail)
    report(VideoReport(planned.video.id, schema.OK, "", "", seconds, pairs))
    frame_info = {
        "frames": info.n_frames,
        "fps": info.fps,
        "width": info.width,
        "height": info.height,
        "engine": info.engine,
    }
    return {"video": planned.video.id, "status": schema.OK, "reason": "", "detail": "", **frame_info}


def _portable(planned: PlannedVideo, detail: str) -> str:
    """The detail as the set keeps it: a set must not depend on where the videos were mounted."""
    return detail.replace(str(planned.video.path), planned.path)


def _rejected_row(planned: PlannedVideo, reason: str, detail: str) -> dict[str, Any]:
    return {"video": planned.video.id, "status": schema.REJECTED, "reason": reason, "detail": detail}


def encode_sample(anchor: DecodedAnchor, flow: WindowFlow, settings: Settings) -> EncodedSample:
    """Encode one window. Pairs with non-finite or out-of-range flow get their status and no bytes."""
    window = anchor.window
    columns: dict[str, list[Any]] = {name: [] for name in PAIR_COLUMNS}
    flows: list[bytes | None] = []
    optional: dict[str, bytes] = {}
    for k, offset in enumerate(settings.offsets):
        confidence = None if flow.confidence_khw is None else flow.confidence_khw[k]
        data, statistics = encode_pair(np.asarray(flow.flow_kchw[k], np.float32), confidence, settings.noise_floor_px)
        flows.append(data)
        statistics |= {"neighbour_frame": window.neighbour_indices[k], "neighbour_time_s": window.neighbour_times_s[k]}
        for name, values in columns.items():
            values.append(statistics[name])
        label = schema.offset_label(offset)
        if settings.keep_neighbours:
            assert anchor.neighbour_images_khwc is not None
            optional[f"{label}.jpg"] = encode_image(anchor.neighbour_images_khwc[k], settings.jpeg_quality)
        if settings.keep_confidence and confidence is not None and data is not None:
            optional[f"{label}.conf.jpg"] = encode_confidence(confidence)
    image = encode_image(anchor.image_hwc, settings.jpeg_quality)
    return EncodedSample(window.video_id, window.anchor_index, window.anchor_time_s, image, flows, columns, optional)


PAIR_COLUMNS = (
    "neighbour_frame",
    "neighbour_time_s",
    "status",
    "quantum_exponent",
    "mean_dx_px",
    "mean_dy_px",
    "std_dx_px",
    "std_dy_px",
    "max_px",
    "confidence",
)


def encode_pair(
    flow_chw: NDArray[np.float32], confidence_hw: NDArray[np.float32] | None, noise_floor_px: float
) -> tuple[bytes | None, dict[str, Any]]:
    """(member or None, index columns) of one pair."""
    unknown: dict[str, Any] = dict.fromkeys(PAIR_COLUMNS[3:])
    if not np.isfinite(flow_chw).all():
        return None, {**unknown, "status": schema.NON_FINITE}
    try:
        data = encode_flow(flow_chw)
    except FlowRangeError:
        return None, {**unknown, "status": schema.OUT_OF_RANGE}
    std = channel_std_px(flow_chw)
    mean = flow_chw.reshape(2, -1).mean(axis=1, dtype=np.float64)
    return data, {
        "status": schema.STILL if std.min() < noise_floor_px else schema.STORED,
        "quantum_exponent": pair_exponent(flow_chw),
        "mean_dx_px": float(mean[0]),
        "mean_dy_px": float(mean[1]),
        "std_dx_px": float(std[0]),
        "std_dy_px": float(std[1]),
        "max_px": float(np.sqrt(np.square(flow_chw, dtype=np.float64).sum(axis=0).max())),
        "confidence": None if confidence_hw is None else float(confidence_hw.mean(dtype=np.float64)),
    }


def encode_image(image_hwc: NDArray[np.uint8], quality: int) -> bytes:
    """Baseline JPEG, 4:2:0."""
    return bytes(
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(image_hwc), quality=quality, colorspace="RGB", colorsubsampling="420"
        )
    )


def encode_confidence(confidence_hw: NDArray[np.float32]) -> bytes:
    """[S, S] in [0, 1] → grey JPEG of quality 95, 255 = 1."""
    grey = np.rint(np.clip(confidence_hw, 0, 1) * 255).astype(np.uint8)[..., None]
    return bytes(
        simplejpeg.encode_jpeg(np.ascontiguousarray(grey), quality=95, colorspace="GRAY", colorsubsampling="Gray")
    )

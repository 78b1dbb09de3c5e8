"""One window and its flow → the members and index columns of a sample.

Where data comes from: the estimate stage. Where it goes: `ChunkWriter.add`, through the write stage. Statistics are of the flow
before it is rounded to its quantum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from pipeline.video.decoder import DecodedAnchor
from pipeline.window import WindowFlow
from shards import schema
from shards.codec import (
    QUANTUM_EXPONENT_MIN,
    VALUE_MAX,
    FlowRangeError,
    channel_mean_std_px,
    encode_at,
    quantum_exponent,
)
from shards.schema import Settings
from shards.writer import EncodedSample

_FITS_PX = 0.99 * VALUE_MAX * 2.0**QUANTUM_EXPONENT_MIN
"""Flow below this fits 16 bits at the finest quantum, with a margin for lengths in fp32."""


@dataclass(frozen=True)
class PairStatistics:
    """Index columns of one pair, named as in the index; None where nothing is stored. status: one of schema.PAIR_STATUS."""

    status: str
    quantum_exponent: int | None = None
    mean_dx_px: float | None = None
    mean_dy_px: float | None = None
    std_dx_px: float | None = None
    std_dy_px: float | None = None
    max_px: float | None = None
    confidence: float | None = None


def encode_sample(anchor: DecodedAnchor, flow: WindowFlow, settings: Settings) -> EncodedSample:
    """Encode one window. Pairs with non-finite or out-of-range flow get their status and no bytes."""
    window = anchor.window
    flows: list[bytes | None] = []
    pairs: list[PairStatistics] = []
    optional: dict[str, bytes] = {}
    for k, offset in enumerate(settings.offsets):
        confidence_hw = None if flow.confidence_khw is None else flow.confidence_khw[k]
        data, statistics = encode_pair(
            np.asarray(flow.flow_kchw[k], np.float32), confidence_hw, settings.noise_floor_px
        )
        flows.append(data)
        pairs.append(statistics)
        label = schema.offset_label(offset)
        if settings.keep_neighbours:
            assert anchor.neighbour_images_khwc is not None
            optional[f"{label}.jpg"] = encode_image(anchor.neighbour_images_khwc[k], settings.jpeg_quality)
        if settings.keep_confidence and confidence_hw is not None and data is not None:
            optional[f"{label}.conf.jpg"] = encode_confidence(confidence_hw)
        if settings.keep_reverse and data is not None:
            assert flow.reverse_kchw is not None
            back = encode_pair(np.asarray(flow.reverse_kchw[k], np.float32), None, settings.noise_floor_px)[0]
            if back is not None:
                optional[f"{label}.reverse"] = back
    columns = {field.name: [getattr(pair, field.name) for pair in pairs] for field in fields(PairStatistics)}
    columns |= {"neighbour_frame": list(window.neighbour_indices), "neighbour_time_s": list(window.neighbour_times_s)}
    image = encode_image(anchor.image_hwc, settings.jpeg_quality)
    return EncodedSample(window.video_id, window.anchor_index, window.anchor_time_s, image, flows, columns, optional)


def encode_pair(
    flow_chw: NDArray[np.float32], confidence_hw: NDArray[np.float32] | None, noise_floor_px: float
) -> tuple[bytes | None, PairStatistics]:
    """(member or None, its statistics) of one pair."""
    squares_hw = np.square(flow_chw[0])
    squares_hw += np.square(flow_chw[1])
    longest_px = math.sqrt(squares_hw.max())
    # No component is longer than the vector, and short ones fit any quantum: then the exact peak is not needed.
    peak_px = longest_px if longest_px < _FITS_PX else max(float(flow_chw.max()), -float(flow_chw.min()))
    if not np.isfinite(peak_px):  # NaN and infinity reach the maximum
        return None, PairStatistics(schema.NON_FINITE)
    mean, std = channel_mean_std_px(flow_chw)
    try:
        exponent = quantum_exponent(float(std.min()), peak_px)
    except FlowRangeError:
        return None, PairStatistics(schema.OUT_OF_RANGE)
    return encode_at(flow_chw, exponent), PairStatistics(
        status=schema.STILL if std.min() < noise_floor_px else schema.STORED,
        quantum_exponent=exponent,
        mean_dx_px=float(mean[0]),
        mean_dy_px=float(mean[1]),
        std_dx_px=float(std[0]),
        std_dy_px=float(std[1]),
        max_px=_longest_px(flow_chw, squares_hw),
        confidence=None if confidence_hw is None else float(confidence_hw.mean(dtype=np.float64)),
    )


def _longest_px(flow_chw: NDArray[np.float32], squares_hw: NDArray[np.float32]) -> float:
    """The length of the longest vector, in double precision of those that are as long as it in fp32. squares_hw: of lengths, in fp32."""
    least = float(squares_hw.max()) * (1 - 1e-5) - 1e-30  # where squares of fp32 lose bits all vectors are taken
    candidates = flow_chw.reshape(2, -1)[:, np.flatnonzero(squares_hw >= least)]
    return float(np.sqrt(np.square(candidates, dtype=np.float64).sum(axis=0).max()))


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

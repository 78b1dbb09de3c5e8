"""A small real shard set, written by the writer, for every test of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import simplejpeg

from shards import schema
from shards.codec import channel_std_px, encode_flow, pair_exponent
from shards.schema import Settings
from shards.writer import ChunkWriter, EncodedSample, finalize

SETTINGS = Settings(dataset="folder", estimator={"name": "none"}, image_size=32, flow_size=16, chunk_videos=3)
CHUNKS, PASSES = 2, 2


def flow_of(chunk: int, pass_index: int, position: int, k: int) -> np.ndarray:
    """The flow that the set stores for one pair: smooth, a few pixels, different for every pair."""
    generator = np.random.default_rng([chunk, pass_index, position, k])
    y, x = np.mgrid[0:16, 0:16] / 16
    a, b, c, d = generator.normal(size=4)
    return np.stack([3 * a * x + b * y, np.sin(3 * c * x) + 2 * d * y]).astype(np.float32)


def image_of(chunk: int, pass_index: int, position: int) -> np.ndarray:
    return np.random.default_rng([7, chunk, pass_index, position]).integers(0, 255, (32, 32, 3), np.uint8)


def optional_of(chunk: int, pass_index: int, position: int) -> dict[str, bytes]:
    """Neighbour frames and confidences as extraction keeps them; neighbour m2 of the second video has no flow, so no confidence."""
    draw = np.random.default_rng([8, chunk, pass_index, position])
    kept = {}
    for offset in SETTINGS.offsets:
        label = schema.offset_label(offset)
        frame, confidence = draw.integers(0, 255, (32, 32, 3), np.uint8), draw.integers(0, 255, (16, 16, 1), np.uint8)
        kept[f"{label}.jpg"] = simplejpeg.encode_jpeg(frame, quality=90, colorspace="RGB")
        if (position, label) != (1, "m2"):
            kept[f"{label}.conf.jpg"] = simplejpeg.encode_jpeg(
                confidence, quality=95, colorspace="GRAY", colorsubsampling="Gray"
            )
    return kept


def encoded(chunk: int, pass_index: int, position: int, optional: Mapping[str, bytes] | None = None) -> EncodedSample:
    flows = [flow_of(chunk, pass_index, position, k) for k in range(4)]
    std = np.stack([channel_std_px(f) for f in flows])
    mean = np.stack([f.reshape(2, -1).mean(axis=1) for f in flows])
    columns = {
        "neighbour_frame": [8, 9, 11, 12],
        "neighbour_time_s": [0.8, 0.9, 1.1, 1.2],
        "status": [schema.STORED] * 4,
        "quantum_exponent": [pair_exponent(f) for f in flows],
        "mean_dx_px": mean[:, 0].tolist(),
        "mean_dy_px": mean[:, 1].tolist(),
        "std_dx_px": std[:, 0].tolist(),
        "std_dy_px": std[:, 1].tolist(),
        "max_px": [float(np.hypot(*f).max()) for f in flows],
        "confidence": [None] * 4,
    }
    data: list[bytes | None] = [encode_flow(f) for f in flows]
    if position == 1:  # one pair of one video in each shard was not stored
        columns["status"] = [schema.NON_FINITE, schema.STILL, schema.STORED, schema.STORED]
        data[0] = None
    image = simplejpeg.encode_jpeg(image_of(chunk, pass_index, position), quality=90, colorspace="RGB")
    return EncodedSample(f"video-{chunk}-{position}", 10, 1.0, image, data, columns, optional or {})


def commit_chunk(
    root: Path,
    settings: Settings,
    chunk: int,
    passes: Sequence[int],
    optional: Callable[[int, int, int], Mapping[str, bytes]] | None = None,
) -> None:
    """Passes of a chunk whose third video is rejected."""
    names = [f"video-{chunk}-{i}" for i in range(SETTINGS.chunk_videos)]
    writer = ChunkWriter(root, settings, chunk, passes)
    for pass_index in passes:
        for position in range(2):
            kept = optional(chunk, pass_index, position) if optional else None
            writer.add(pass_index, position, encoded(chunk, pass_index, position, kept))
    ok = {
        "status": "ok",
        "reason": "",
        "detail": "",
        "frames": 20,
        "fps": 10.0,
        "width": 64,
        "height": 48,
        "engine": "test",
    }
    bad = {"status": "rejected", "reason": "corrupt", "detail": "made up"}
    writer.commit([{"video": names[0], **ok}, {"video": names[1], **ok}, {"video": names[2], **bad}])


def write_set(
    root: Path,
    chunks: int = CHUNKS,
    passes: int = PASSES,
    landed: int | None = None,
    optional: Callable[[int, int, int], Mapping[str, bytes]] | None = None,
) -> Path:
    """optional: makes the optional members of (chunk, pass, position); then the set says that it keeps them."""
    settings = SETTINGS
    if optional:
        keep_reverse = any(name.endswith(".reverse") for name in optional(0, 0, 0))
        settings = replace(SETTINGS, keep_neighbours=True, keep_confidence=True, keep_reverse=keep_reverse)
    plan = []
    for chunk in range(chunks):
        names = [f"video-{chunk}-{i}" for i in range(SETTINGS.chunk_videos)]
        plan += [{"video": n, "path": f"{n}.mp4", "chunk": chunk, "position": i} for i, n in enumerate(names)]
        if landed is not None and chunk >= landed:
            continue
        commit_chunk(root, settings, chunk, range(passes), optional)
    (root / schema.RECORDS).mkdir(parents=True, exist_ok=True)
    (root / schema.PLAN).write_text("{}")  # the pipeline's; without one a set counts as one that cannot be continued
    finalize(root, settings, chunks, passes, plan)
    return root

"""A real shard set small enough to train on in a test, and a source that counts, fails or hangs on demand."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import simplejpeg

from shards import schema
from shards.codec import channel_std_px, encode_flow, pair_exponent
from shards.reader import ShardSet
from shards.sample import Buffers
from shards.schema import SampleError, Settings
from shards.writer import ChunkWriter, EncodedSample, finalize

IMAGE, FLOW = 64, 32
SETTINGS = Settings(
    dataset="folder", estimator={"name": "truth"}, image_size=IMAGE, flow_size=FLOW, offsets=(-1, 1, 2), chunk_videos=6
)


def sample(number: int, settings: Settings = SETTINGS) -> EncodedSample:
    """A bright square moves over a dark background; flow to all neighbours, of which some samples lack the first."""
    every, count = IMAGE // settings.flow_size, len(settings.offsets)
    draw = np.random.default_rng(number)
    y, x = np.mgrid[0:IMAGE, 0:IMAGE]
    top, left = draw.integers(8, 28, size=2)
    inside = (y >= top) & (y < top + 24) & (x >= left) & (x < left + 24)
    picture = np.where(inside[..., None], draw.integers(150, 255, 3), draw.integers(0, 90, 3))
    picture = (picture + draw.normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8)
    motion, camera = draw.normal(0, 3, 2), draw.normal(0, 1, 2)
    flows = []
    for offset in settings.offsets:
        flow = np.where(inside[::every, ::every], motion[:, None, None], camera[:, None, None]) * offset / 2
        flows.append((flow + draw.normal(0, 0.02, flow.shape)).astype(np.float32))
    data: list[bytes | None] = [encode_flow(flow) for flow in flows]
    std = np.stack([channel_std_px(flow) for flow in flows])
    mean = np.stack([flow.reshape(2, -1).mean(axis=1) for flow in flows])
    status = [schema.STORED] * count
    if number % 3 == 0:
        status[0], data[0] = schema.NON_FINITE, None
    columns = {
        "neighbour_frame": [10 + offset for offset in settings.offsets],
        "neighbour_time_s": [1 + offset / 10 for offset in settings.offsets],
        "status": status,
        "quantum_exponent": [pair_exponent(flow) for flow in flows],
        "mean_dx_px": mean[:, 0].tolist(),
        "mean_dy_px": mean[:, 1].tolist(),
        "std_dx_px": std[:, 0].tolist(),
        "std_dy_px": std[:, 1].tolist(),
        "max_px": [float(np.hypot(*flow).max()) for flow in flows],
        "confidence": [None] * count,
    }
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=90, colorspace="RGB")
    return EncodedSample(f"v{number}", 10, 1.0, jpeg, data, columns, {})


def optional_members(number: int) -> dict[str, bytes]:
    """What extraction keeps with --keep-neighbours and --keep-confidence; sample 4 has no confidence for its flow to +1."""
    draw = np.random.default_rng([number, 1])
    kept = {}
    for offset in SETTINGS.offsets:
        label = schema.offset_label(offset)
        frame = draw.integers(0, 255, (IMAGE // 8, IMAGE // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        confidence = draw.integers(0, 255, (FLOW // 4, FLOW // 4, 1), np.uint8).repeat(4, 0).repeat(4, 1)
        kept[f"{label}.jpg"] = simplejpeg.encode_jpeg(frame, quality=90, colorspace="RGB")
        if (number, offset) != (4, 1):
            kept[f"{label}.conf.jpg"] = simplejpeg.encode_jpeg(
                confidence, quality=95, colorspace="GRAY", colorsubsampling="Gray"
            )
    return kept


def write_training_set(
    root: Path,
    samples: int = 10,
    complete: bool = True,
    optional: bool = False,
    passes: int = 1,
    first: int = 0,
    settings: Settings = SETTINGS,
) -> Path:
    """Passes of chunks of six videos from number `first` on; `complete` false leaves the last chunk out, `optional` keeps
    neighbours and confidence."""
    settings = replace(settings, keep_neighbours=optional, keep_confidence=optional)
    ok = {"status": "ok", "reason": "", "detail": "", "frames": 20, "fps": 10.0, "width": 64, "height": 64}
    every = settings.chunk_videos
    chunks = -(-samples // every)
    plan = []
    for chunk in range(chunks):
        numbers = range(first + chunk * every, first + min(samples, (chunk + 1) * every))
        plan += [{"video": f"v{n}", "path": f"v{n}.mp4", "chunk": chunk, "position": i} for i, n in enumerate(numbers)]
        if chunk == chunks - 1 and not complete:
            continue
        writer = ChunkWriter(root, settings, chunk, list(range(passes)))
        for position, number in enumerate(numbers):
            for taken in range(passes):
                encoded = sample(number + 100 * taken, settings)
                kept = replace(encoded, optional=optional_members(number)) if optional else encoded
                writer.add(taken, position, kept)
        writer.commit([{"video": f"v{n}", "engine": "test", **ok} for n in numbers])
    finalize(root, settings, chunks, passes, plan)
    return root


def flip_image_byte(root: Path, row: int) -> str:
    """Damage the picture of one sample in place; returns its key."""
    shards = ShardSet(root)
    path = root / shards.shard_of(row)
    with open(path, "r+b") as file:
        file.seek(shards.members(row)[0].offset + 100)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0x10]))
    return shards.keys[row]


@dataclass
class FakeSource:
    """Stands in for a ShardSet: sample i's frame is filled with i, its flow with k. Listed samples fail or hang."""

    bad: Iterable[int] = ()
    hang: Iterable[int] = ()
    delay_s: float = 0.0
    crash: Iterable[int] = ()
    reads: list[tuple[int, int]] = field(default_factory=list)

    def read_into(self, i: int, k: int, out: Buffers, /) -> float:
        self.reads.append((i, k))
        if i in self.hang:
            time.sleep(3600)
        if i in self.crash:
            raise ZeroDivisionError("a defect in the reader")
        if i in self.bad:
            raise SampleError(f"sample-{i} in some shard is damaged")
        time.sleep(self.delay_s)
        assert out.image_hwc is not None and out.flow_chw is not None
        out.image_hwc[:] = i % 256
        out.flow_chw[:] = k
        return 2.0**-k

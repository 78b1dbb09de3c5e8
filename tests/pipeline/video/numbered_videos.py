"""Videos whose frames say their own number, so that a decoder's claim "this is frame 17" can be checked."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

BITS = 12
WIDTH, HEIGHT = 192, 128


def numbered_frame(number: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """BITS dark or bright vertical bars over the middle: robust against lossy coding, resizing and centre crops of 3:2 frames."""
    bits = [(number >> bit) & 1 for bit in range(BITS)]
    columns = np.full(width, 128, np.uint8)
    left, bar = width // 4, (width // 2) // BITS
    for bit, value in enumerate(bits):
        columns[left + bit * bar : left + (bit + 1) * bar] = 230 if value else 25
    return np.ascontiguousarray(np.broadcast_to(columns[None, :, None], (height, width, 3)))


def read_number(frame_hwc: NDArray[np.uint8], crop_of: tuple[int, int] | None = None) -> int:
    """The number in a frame; crop_of: (width, height) of the frame that this is the centre square of."""
    width = frame_hwc.shape[1]
    full = width if crop_of is None else width * crop_of[0] / crop_of[1]
    left, bar = full / 4 - (full - width) / 2, (full / 2) / BITS * (((WIDTH // 2) // BITS) * BITS / (WIDTH / 2))
    middle = frame_hwc[frame_hwc.shape[0] // 4 : 3 * frame_hwc.shape[0] // 4].mean(axis=(0, 2))
    values = [middle[int(left + (bit + 0.5) * bar)] for bit in range(BITS)]
    return sum((value > 128) << bit for bit, value in enumerate(values))


def write_video(
    path: Path,
    n_frames: int,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    rate: int = 25,
    times_ms: Sequence[int] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    title: str = "",
) -> Path:
    """Frame i shows number i. times_ms: presentation times of a variable-rate video, else constant `rate`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        if title:
            container.metadata["title"] = title
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        if times_ms is not None:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for number in range(n_frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number, *size), format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_audio(path: Path) -> Path:
    """Half a second of AAC silence and no video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for _ in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate = 16000
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut_by_edit_list(path: Path, *, skip_s: float, shown_s: float) -> None:
    """Rewrite the single edit of an MP4 in place, as a stream copy with -ss and -t does."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4
    assert data[at] == 0 and struct.unpack_from(">I", data, at + 4)[0] == 1
    mvhd = data.index(b"mvhd") + 4
    mdhd = data.index(b"mdhd") + 4
    movie_scale, media_scale = (struct.unpack_from(">I", data, box + 12)[0] for box in (mvhd, mdhd))
    media_start = struct.unpack_from(">i", data, at + 12)[0]
    struct.pack_into(">Ii", data, at + 8, round(shown_s * movie_scale), media_start + round(skip_s * media_scale))
    path.write_bytes(data)

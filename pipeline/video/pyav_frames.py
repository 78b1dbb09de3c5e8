"""Frames through PyAV, which is optional: it reads what decord cannot or must not (see `decord_frames`).

Comes in: a path and its first bytes. Goes out: a `FrameSource`, or a Reject, because behind PyAV there is no other engine. It decodes
twice: once to learn every stamp and to be sure that the file decodes to its end, once for the wanted frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.video.frame_source import FALLBACK_FPS, first_line, presentation_times_s
from pipeline.video.rejects import Reject, is_container


class PyAVFrames:
    """PyAV, one thread. Raises Reject: behind it there is no other engine."""

    engine = "pyav"

    def __init__(self, path: Path, head: bytes) -> None:
        self._av = import_av()
        self._path = path
        self._head = head
        stamps: list[float] = []
        fps = FALLBACK_FPS
        size: tuple[int, int] | None = None
        for frame, stream in self._decode():
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:  # as with the other sources: a window would hold two scales
                raise Reject(
                    "corrupt",
                    f"{path}: frame {len(stamps)} is {frame.width}x{frame.height} px, frames before it are {size[0]}x{size[1]}",
                )
            if frame.is_corrupt:
                raise Reject("corrupt", f"{path}: frame {len(stamps)} is damaged or made up, says FFmpeg's decoder")
            stamps.append(np.nan if frame.pts is None else float(frame.pts * frame.time_base))
            fps = float(stream.average_rate or FALLBACK_FPS)
        self.times_s = presentation_times_s(np.asarray(stamps, np.float64), fps)

    def _decode(self) -> Iterator[tuple[Any, Any]]:
        try:
            with self._av.open(str(self._path), metadata_errors="replace") as container:
                stream = container.streams.best("video")
                if stream is None:
                    raise Reject(*self._without_video(container))
                if stream.codec_context is None:
                    raise Reject("unsupported_codec", f"{self._path}: FFmpeg has no decoder for its video stream")
                stream.codec_context.thread_count = 1
                for frame in container.decode(stream):
                    yield frame, stream
        except self._av.error.DecoderNotFoundError as error:
            raise Reject("unsupported_codec", f"{self._path}: {first_line(error)}") from error
        except (self._av.error.FFmpegError, ValueError) as error:
            reason = "corrupt" if is_container(self._head) else "not_a_video"
            raise Reject(reason, f"{self._path}: {first_line(error)}") from error

    def _without_video(self, container: Any) -> tuple[str, str]:
        if container.streams.video:
            return "unsupported_codec", f"{self._path}: FFmpeg has no decoder for its video stream"
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        return "no_video_stream", f"{self._path} holds {kinds} and no video"

    def fetch(self, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """As FrameSource.fetch."""
        wanted = iter(indices)
        target = next(wanted, None)
        for index, (frame, _) in enumerate(self._decode()):
            if target is None:
                return
            if index == target:
                yield index, upright(frame.to_ndarray(format="rgb24"), getattr(frame, "rotation", 0))
                target = next(wanted, None)

    def close(self) -> None:
        """Nothing is kept open between passes."""


def upright(frame_hwc: NDArray[np.uint8], rotation_deg: int) -> NDArray[np.uint8]:
    """The frame turned counter-clockwise by a multiple of 90 degrees, as players show it; other angles are left alone."""
    turns = rotation_deg // 90 % 4 if rotation_deg % 90 == 0 else 0
    return np.ascontiguousarray(np.rot90(frame_hwc, turns)) if turns else frame_hwc


def import_av() -> ModuleType:
    """The optional PyAV. Raises ImportError when it is not installed."""
    import av

    return av

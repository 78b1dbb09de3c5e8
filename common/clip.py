"""Pictures of one size as a short video that every current browser plays, VP9 in .mp4, and a video's frames one by one.

OpenCV's own encoder writes it, so nothing has to be installed. (Its H.264 needs a library that its packages do not bring, and
browsers do not play the MPEG-4 it falls back to.) Frames come in and go out as uint8 [h, w, 3] RGB and are not held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from shards.files import atomic_path

FOURCC = "vp09"


VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm")
USUAL_FPS = 25.0
"""Of a video that does not say."""


def write_clip(path: Path, frames_hwc: Iterable[NDArray[np.uint8]], fps: float) -> int:
    """Write `path`, which ends in .mp4; the number of frames. An odd last row or column is left out: the codec halves its colours.

    Raises
    ------
    ValueError: no frames, or frames of several sizes. OSError: the encoder cannot open the file, or frames are missing in it.
    """
    frames = iter(frames_hwc)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: a clip needs frames of one size, not none")
    height, width = first.shape[0] // 2 * 2, first.shape[1] // 2 * 2
    count = 0
    with atomic_path(path, keep_suffix=True) as temporary:
        writer = cv2.VideoWriter(str(temporary), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*FOURCC), fps, (width, height))
        if not writer.isOpened():
            raise OSError(f"{path}: OpenCV cannot open a VP9 video of {width}x{height} for writing here")
        try:
            for frame in chain([first], frames):
                if frame.shape != first.shape:
                    raise ValueError(f"{path}: a clip needs frames of one size, not {first.shape} and {frame.shape}")
                writer.write(cv2.cvtColor(np.ascontiguousarray(frame[:height, :width]), cv2.COLOR_RGB2BGR))
                count += 1
        finally:
            writer.release()
        written = frames_in(temporary)
        if written != count:  # OpenCV reports no failed write, not even a full disk
            raise OSError(f"{path}: {written} of {count} frames could be read back; is the disk full?")
    return count


@dataclass(frozen=True)
class VideoFile:
    """A video to be read. What cannot be opened has no frames; reading ends where the file is damaged."""

    path: Path

    def claimed_frames(self) -> int:
        """How many frames the container claims to have: exact in mp4, else an estimate; 0 where it doesn't say."""
        return max(0, int(self._property(cv2.CAP_PROP_FRAME_COUNT)))

    def fps(self) -> float:
        """Frames per second, 25 where it doesn't say."""
        return self._property(cv2.CAP_PROP_FPS) or USUAL_FPS

    def frames(self, start: int = 0) -> Iterator[NDArray[np.uint8]]:
        """The frames from `start` on, RGB. Those before are decoded too: seeking is inexact in many containers."""
        capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        try:
            for _ in range(start):
                if not capture.grab():
                    return
            while True:
                more, frame_hwc = capture.read()
                if not more:
                    return
                yield cv2.cvtColor(frame_hwc, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()

    def middle_frame(self) -> NDArray[np.uint8]:
        """The frame in the middle, or the first where that cannot be reached. Raises ValueError where none can be read."""
        for start in (self.claimed_frames() // 2, 0):
            for frame_hwc in self.frames(start):
                return frame_hwc
        raise ValueError(f"cannot decode the video {self.path}")

    def _property(self, which: int) -> float:
        capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        value = capture.get(which)
        capture.release()
        return float(value)


def frames_in(path: Path) -> int:
    """How many frames of a video can be read."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    return count

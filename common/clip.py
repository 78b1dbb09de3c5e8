"""Pictures of one size as a short video that every current browser plays: VP9 in .mp4.

OpenCV's own encoder writes it, so nothing has to be installed. (Its H.264 needs a library that its packages do not bring, and
browsers do not play the MPEG-4 it falls back to.) Frames come in as uint8 [h, w, 3] RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from shards.files import atomic_path

FOURCC = "vp09"


def write_clip(path: Path, frames_hwc: Sequence[NDArray[np.uint8]], fps: float) -> None:
    """Write `path`, which ends in .mp4. An odd last row or column is left out: the codec halves its colours.

    Raises
    ------
    ValueError: no frames, or frames of several sizes. OSError: the encoder cannot open the file, or frames are missing in it.
    """
    sizes = {frame.shape for frame in frames_hwc}
    if len(sizes) != 1:
        raise ValueError(f"{path}: a clip needs frames of one size, not {sorted(sizes) or 'none'}")
    height, width = frames_hwc[0].shape[0] // 2 * 2, frames_hwc[0].shape[1] // 2 * 2
    with atomic_path(path, keep_suffix=True) as temporary:
        writer = cv2.VideoWriter(str(temporary), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*FOURCC), fps, (width, height))
        if not writer.isOpened():
            raise OSError(f"{path}: OpenCV cannot open a VP9 video of {width}x{height} for writing here")
        for frame in frames_hwc:
            writer.write(cv2.cvtColor(np.ascontiguousarray(frame[:height, :width]), cv2.COLOR_RGB2BGR))
        writer.release()
        written = frames_in(temporary)
        if written != len(frames_hwc):  # OpenCV reports no failed write, not even a full disk
            raise OSError(f"{path}: {written} of {len(frames_hwc)} frames could be read back; is the disk full?")


def frames_in(path: Path) -> int:
    """How many frames of a video can be read."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    return count

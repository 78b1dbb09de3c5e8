"""The frames of one video, decoded once for two readers: whoever looks at all of them, and whoever then wants a few.

Comes in: a `FrameSource`. `all_frames` sweeps it and keeps what passes in one block of memory; `fetch` then reads from that block. A
video whose frames do not fit is swept again instead, so memory stays bounded however long or large a video is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.video.frame_source import FrameSource

MOST_KEPT_BYTES = 128 * 2**20
"""Of one video: 17 s of 340x256 px at 30 frames per second, 109 frames of 854x480 px."""


class KeptFrames:
    """A FrameSource around `source`. most_bytes: a video whose frames take more is decoded again for `fetch`."""

    def __init__(self, source: FrameSource, most_bytes: int = MOST_KEPT_BYTES) -> None:
        self._source = source
        self._most_bytes = most_bytes
        self._kept_nhwc: NDArray[np.uint8] | None = None
        self.engine = source.engine
        self.times_s = source.times_s

    def all_frames(self) -> Iterator[NDArray[np.uint8]]:
        """Every frame [H, W, 3] uint8 RGB in order. Raises what the source raises."""
        count, came = len(self.times_s), 0
        kept_nhwc: NDArray[np.uint8] | None = None
        for index, frame_hwc in self._source.fetch(range(count)):
            if index == 0 and count * frame_hwc.nbytes <= self._most_bytes:
                # One block: given back to the system as a whole, where hundreds of arrays would leave holes.
                kept_nhwc = np.empty((count, *frame_hwc.shape), np.uint8)
            if kept_nhwc is not None and kept_nhwc.shape[1:] == frame_hwc.shape:
                kept_nhwc[index] = frame_hwc
                came += 1
            yield frame_hwc
        if came == count:  # else the source has to say by itself, frame by frame, what it lacks
            self._kept_nhwc = kept_nhwc

    def fetch(self, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """As FrameSource.fetch."""
        if self._kept_nhwc is None:
            yield from self._source.fetch(indices)
            return
        for index in indices:
            yield index, self._kept_nhwc[index]

    def close(self) -> None:
        """Release the file and the frames."""
        self._kept_nhwc = None
        self._source.close()

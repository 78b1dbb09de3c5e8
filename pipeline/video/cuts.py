"""Shot cuts: where they are in a video, and which windows cross one.

Comes in: every frame of a video in order, and the rule of the set. Goes out: the frames that begin a new shot, from PySceneDetect's
detectors (an optional package). Flow across a cut joins pictures that have nothing to do with each other, so such windows are not taken.

The detectors see each frame reduced to about 256 px of width, as PySceneDetect's own command feeds them. Every cut counts, however short
the shot before it: a flash of one frame is two, and a window across it is as useless.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.video.cut_rule import CutRule

DETECTION_WIDTH_PX = 256
ADAPTIVE_REACH_FRAMES = 2
"""The adaptive detector compares a frame's change with that of so many frames on either side, and says nothing of the ends."""
LEAST_CONTENT_CHANGE = 15.0
"""Of the adaptive detector, PySceneDetect's default: below it nothing is a cut, however still the frames around it are."""


class _Detector(Protocol):
    def process_frame(self, timecode: Any, frame_img: NDArray[np.uint8]) -> list[Any]: ...


def find_cuts(frames: Iterable[NDArray[np.uint8]], rule: CutRule) -> NDArray[np.int64]:
    """Ascending places of the frames that begin a new shot. frames: [H, W, 3] uint8 RGB, consecutive and all of one size."""
    from scenedetect import FrameTimecode  # optional, and a second to import

    detector, reach = _detector(rule)
    found: set[int] = set()
    for place, frame_hwc in enumerate(_with_still_ends(map(reduced, frames), reach)):
        # The rate has no meaning here: detectors only count frames.
        found.update(
            int(cut.frame_num) - reach for cut in detector.process_frame(FrameTimecode(place, 25.0), frame_hwc)
        )
    return np.asarray(sorted(cut for cut in found if cut > 0), np.int64)


def _detector(rule: CutRule) -> tuple[_Detector, int]:
    """(a fresh detector that lets no cut pass for being near another one, how many frames it looks to either side)."""
    from scenedetect.detectors import AdaptiveDetector, ContentDetector  # as above

    if rule.detector == "content":
        return ContentDetector(threshold=rule.threshold, min_scene_len=0), 0
    return (
        AdaptiveDetector(
            adaptive_threshold=rule.threshold,
            min_scene_len=0,
            window_width=ADAPTIVE_REACH_FRAMES,
            min_content_val=LEAST_CONTENT_CHANGE,
        ),
        ADAPTIVE_REACH_FRAMES,
    )


def _with_still_ends(frames: Iterator[NDArray[np.uint8]], count: int) -> Iterator[NDArray[np.uint8]]:
    """The frames with the first and the last one held, so that a detector that looks around it reaches the ends."""
    last: NDArray[np.uint8] | None = None
    for frame_hwc in frames:
        if last is None:
            yield from [frame_hwc] * count
        yield (last := frame_hwc)
    if last is not None:
        yield from [last] * count


def reduced(frame_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An RGB frame as the detectors see it: BGR, a whole number of times smaller."""
    factor = max(1, frame_hwc.shape[1] // DETECTION_WIDTH_PX)
    height, width = frame_hwc.shape[0], frame_hwc.shape[1]
    small = cv2.resize(frame_hwc, (max(1, width // factor), max(1, height // factor))) if factor > 1 else frame_hwc
    return np.ascontiguousarray(small[..., ::-1])


def crossing(anchors: NDArray[np.int64], neighbours: NDArray[np.int64], cuts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[A]: whether the frames of a window, anchor [A] and neighbours [A, K], lie on both sides of a cut."""
    window = np.column_stack([anchors, neighbours])
    before = np.searchsorted(cuts, window.min(axis=1), side="right")
    return np.asarray(np.searchsorted(cuts, window.max(axis=1), side="right") > before)

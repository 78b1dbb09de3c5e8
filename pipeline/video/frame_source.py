"""What every frame source offers: presentation times, and frames by their place in them.

Comes in: a path, known to one of `decord_frames`, `pyav_frames` and `folder_frames`. Goes out: `times_s` (seconds from the first
frame, never decreasing) and, for sorted indices into it, RGB frames [H, W, 3] uint8, upright. Only the decoding child imports the
sources, so a library that hangs or dies takes nobody with it. `windows` chooses among them and knows this protocol alone.

Containers without usable presentation times (AVI with B-frames) get times of a constant rate.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FALLBACK_FPS = 25.0


class EngineFailure(Exception):
    """An engine cannot read this file; another may. The message is one line."""


class RepeatedFrames(EngineFailure):
    """The engine ran out of frames before the end of its own list and would repeat the last one."""


class FrameSource(Protocol):
    """engine: its name. times_s: [n] float64 seconds, first 0.0, never decreasing."""

    engine: str
    times_s: NDArray[np.float64]

    def fetch(self, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(index, frame [H, W, 3] uint8 RGB) for ascending distinct indices, in that order, in bounded memory."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


def presentation_times_s(raw_s: NDArray[np.float64], fps: float) -> NDArray[np.float64]:
    """Stamps counted from the first frame, or those of a constant rate when the raw ones are no presentation times."""
    if not are_presentation_times(raw_s):
        rate = fps if np.isfinite(fps) and fps > 0 else FALLBACK_FPS
        return np.arange(len(raw_s)) / rate
    return raw_s - raw_s[0] if len(raw_s) else raw_s


def are_presentation_times(raw_s: NDArray[np.float64]) -> bool:
    """FFmpeg's "no time stamp" is a huge negative number; frames in display order never go back in time."""
    return bool(np.isfinite(raw_s).all() and (np.abs(raw_s) < 1e9).all() and (np.diff(raw_s) >= 0).all())


def first_line(error: BaseException) -> str:
    """The first line of a library's message without its time stamp, source location and stack trace."""
    message = getattr(error, "strerror", None) or str(error)
    lines = str(message).strip().splitlines() or [type(error).__name__]
    line = re.sub(r"^\[\d\d:\d\d:\d\d\] \S+: ", "", lines[0])
    return line if len(line) <= 200 else line[:197] + "..."

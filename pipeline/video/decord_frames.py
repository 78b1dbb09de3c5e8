"""Frames through decord, one thread on the CPU, read so that every frame is the one its index says.

Comes in: a path and its first bytes. Goes out: a `FrameSource`, or EngineFailure where another engine should be asked.

What decord is trusted with, by comparing every frame of some 150 files with a plain decode (docs/decoders.md, for decord2):
- It counts frames wrongly after its own seeks (`get_batch`, `seek`, and `skip_frames` across a key frame) where pictures that
  are shown before a key frame follow it in the stream: x265's defaults, MPEG-2 and MPEG-4 with B-frames. Read in order
  it is exact for MP4, Matroska, AVI and FLV. So frames are swept in order: skipped inside a group of pictures (which saves the color
  conversion), read across its borders.
- Its index counts listed packets, which is the decoder's count only if every packet yields a frame. An edit list hides frames;
  such files are counted by reading them once before. `fault_tol` turns its silent repetition of the last frame into an error.
- It says nothing of pictures that FFmpeg had to make up; `complaints` hears of them.
- It is not asked for MPEG transport and program streams, ASF and Ogg, in which it refused, lost or repeated frames, nor for GIF and
  files without a duration. Those are PyAV's.
- It applies rotation metadata (multiples of 90 degrees), as PyAV does here, so frames come out upright.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.video.complaints import Complaints
from pipeline.video.decord_library import decord
from pipeline.video.edit_list import shown_until_s
from pipeline.video.frame_source import (
    EngineFailure,
    RepeatedFrames,
    are_presentation_times,
    first_line,
    presentation_times_s,
)
from pipeline.video.rejects import keeps_count_in_decord

LONG_JUMP_FRAMES = 600
"""From here on decord may seek instead of decoding what lies between two windows (20 s; clips of 10 s are always swept whole)."""

DECORD_ERRORS = (decord.DECORDError, RuntimeError, StopIteration, IndexError)
"""What decord raises: its own, its runtime's, and for files that hold less than they announce those of Python's sequences."""

FAULT_TOLERANCE = 1e-9
"""decord: a positive fraction makes a single repeated frame raise DECORDLimitReachedError."""


class DecordFrames:
    """decord, one thread, CPU. counted: read the whole file first to learn how many frames really come out.

    Raises EngineFailure when decord cannot open or decode the file or is not to be trusted with it.
    """

    engine = "decord"

    def __init__(self, path: Path, head: bytes, *, counted: bool = False) -> None:
        if not keeps_count_in_decord(head):
            raise EngineFailure("decord loses count of frames in this container")
        self._path = path
        self._complaints = Complaints()
        self._shape: tuple[int, ...] | None = None
        self._reader = self._open()
        try:
            listed = len(self._reader)
            raw_s = np.asarray(self._reader.get_frame_timestamp(np.arange(listed)), np.float64).reshape(listed, 2)[:, 0]
            self._keyframes = [int(index) for index in self._reader.get_key_indices()]
            fps = float(self._reader.get_avg_fps())
        except DECORD_ERRORS as error:
            raise EngineFailure(first_line(error)) from error
        end_s = shown_until_s(path)
        usable = are_presentation_times(raw_s)
        hidden = usable and (bool((raw_s < 0).any()) or (end_s is not None and bool((raw_s >= end_s).any())))
        self.counted = counted or not usable or hidden or (listed > 0 and self._keyframes[:1] != [0])
        if self.counted:
            raw_s = self._shown(raw_s, end_s) if usable else raw_s[: self._count()]
        self.times_s = presentation_times_s(raw_s, fps)

    def _open(self) -> Any:
        try:
            return decord.VideoReader(str(self._path), ctx=decord.cpu(0), num_threads=1, fault_tol=FAULT_TOLERANCE)
        except DECORD_ERRORS as error:
            raise EngineFailure(first_line(error)) from error

    def _count(self) -> int:
        """Frames that the decoder really returns, by reading them all."""
        reader, count = self._open(), 0
        try:
            while count < len(reader):
                reader.next()
                count += 1
        except decord.DECORDLimitReachedError:
            return count
        except DECORD_ERRORS as error:
            raise EngineFailure(first_line(error)) from error
        return count

    def _shown(self, raw_s: NDArray[np.float64], end_s: float | None) -> NDArray[np.float64]:
        """The listed stamps that belong to the frames that come out: those within the edit list, if their number fits."""
        count = self._count()
        from_start_s = raw_s[raw_s >= 0]
        for stamps_s in (from_start_s[from_start_s < (np.inf if end_s is None else end_s)], from_start_s, raw_s):
            if len(stamps_s) == count:
                return stamps_s
        raise EngineFailure(f"the container lists {len(raw_s)} frames and {count} come out of the decoder")

    def fetch(self, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """As FrameSource.fetch. Raises EngineFailure when decoding fails or FFmpeg has covered damage up, RepeatedFrames past the last
        real frame.

        Unless that takes a long jump, the file is read to its end even when the last window lies before it: whether a damaged or cut
        file is refused must not depend on which passes are asked for. Behind a long jump that is left out nothing is promised: decord
        decodes ahead by as much as time allows, so damage just behind the last window may be heard of or not.
        """
        reader, position = self._reader or self._open(), 0
        self._reader = None
        last = len(self.times_s) - 1
        try:
            for index in indices:
                frame = self._read(reader, position, index)
                position = index + 1
                yield index, self._checked(without_padding(frame.asnumpy()))
            if not self.counted and position <= last < position + LONG_JUMP_FRAMES:
                self._read(reader, position, last)
        except decord.DECORDLimitReachedError as error:
            raise RepeatedFrames(first_line(error)) from error
        except DECORD_ERRORS as error:
            raise EngineFailure(first_line(error)) from error
        complaint = self._complaints.first()
        if complaint is not None:
            raise EngineFailure(f"pictures are made up where the file is damaged: {complaint}")

    def _read(self, reader: Any, position: int, index: int) -> Any:
        self._advance(reader, position, index)
        frame = reader.next()
        if len(frame.shape) != 3:
            raise RepeatedFrames(f"no frame {index} comes out of the decoder")
        return frame

    def _checked(self, frame_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The frame if it is what every frame of the file has to be. Raises EngineFailure naming what arrived instead."""
        if frame_hwc.dtype != np.uint8 or frame_hwc.ndim != 3 or frame_hwc.shape[2] != 3:
            raise EngineFailure(f"decord gives frames of {frame_hwc.dtype} {frame_hwc.shape}, not [H, W, 3] of 8 bits")
        self._shape = self._shape or frame_hwc.shape
        if frame_hwc.shape != self._shape:
            raise EngineFailure(f"the frame size changes from {self._shape[:2]} to {frame_hwc.shape[:2]}")
        return frame_hwc

    def _advance(self, reader: Any, position: int, target: int) -> None:
        """Move from frame `position` to `target` without letting decord skip across a key frame, which makes it seek.

        A long jump does seek, to the key frame before the last one: what a seek garbles is over within one group of pictures. decord's
        count may then be off by the few frames that were reordered around that key frame, for all of the following window alike.
        """
        group = bisect_right(self._keyframes, target) - 1
        if not self.counted and group >= 1 and self._keyframes[group - 1] - position > LONG_JUMP_FRAMES:
            position = self._keyframes[group - 1]
            reader.seek_accurate(position)
        while position < target:
            following = bisect_right(self._keyframes, position)
            border = self._keyframes[following] if following < len(self._keyframes) else target + 1
            if border > target:
                reader.skip_frames(target - position)
                return
            if border - 1 > position:
                reader.skip_frames(border - 1 - position)
            reader.next()
            position = border

    def close(self) -> None:
        """Release the file."""
        self._reader = None


def without_padding(frame_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 3] of what decord returns: for some narrow frames (24, 32, 48, 96 px, all up to 16) it takes padded rows for more channels."""
    height, width, channels = frame_hwc.shape
    if channels <= 3:
        return frame_hwc
    return np.ascontiguousarray(frame_hwc.reshape(height, width * channels)[:, : width * 3]).reshape(height, width, 3)

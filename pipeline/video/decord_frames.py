"""Frame sources: one way to read time stamps and frames, over decord, PyAV and folders of pictures.

Comes in: a path. Goes out: `times_s` (seconds from the first frame, never decreasing) and, for sorted indices into it, RGB frames
[H, W, 3] uint8. Only the decoding child imports this module, so a library that hangs or dies takes nobody with it.

What each engine is trusted with, by comparing every frame of some 120 files with a plain decode from the first frame to the last:
- decord counts frames wrongly after its own seeks (`get_batch`, `seek`, and `skip_frames` across a key frame) wherever pictures that
  are shown before a key frame follow it in the stream: x265's defaults, MPEG-2 and MPEG-4 with B-frames, open-GOP H.264. Read in order
  it is exact for MP4, Matroska, AVI and FLV. So frames are swept in order: skipped inside a group of pictures (which saves the colour
  conversion), read across its borders.
- Its index counts listed packets, which is the decoder's count only if every packet yields a frame. An edit list hides frames;
  such files are counted by reading them once before. `fault_tol` turns its silent repetition of the last frame into an error.
- MPEG transport and program streams, ASF and Ogg lose or repeat frames in decord without an error; it is not asked for them.
- PyAV (optional) reads what decord cannot or must not (those containers, AV1, GIF, files without a duration). It decodes twice: once to
  learn every stamp and to be sure that the file decodes to its end, once for the wanted frames.
- Containers without usable presentation times (AVI with B-frames) get times of a constant rate.
- Both apply rotation metadata (multiples of 90 degrees), so frames come out upright. A picture folder's EXIF rotation is ignored.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import decord
import numpy as np
from numpy.typing import NDArray

from pipeline.video.edit_list import shown_until_s
from pipeline.video.rejects import Reject, is_container, keeps_count_in_decord

LONG_JUMP_FRAMES = 600
"""From here on decord may seek instead of decoding what lies between two windows (20 s; clips of 10 s are always swept whole)."""

FAULT_TOLERANCE = 1e-9
"""decord: a positive fraction makes a single repeated frame raise DECORDLimitReachedError."""

FALLBACK_FPS = 25.0


class EngineFailure(Exception):
    """An engine cannot read this file; another may. The message is one line."""


class RepeatedFrames(EngineFailure):
    """decord ran out of frames before the end of its own list and would repeat the last one."""


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
    if not _are_presentation_times(raw_s):
        rate = fps if np.isfinite(fps) and fps > 0 else FALLBACK_FPS
        return np.arange(len(raw_s)) / rate
    return raw_s - raw_s[0] if len(raw_s) else raw_s


def _are_presentation_times(raw_s: NDArray[np.float64]) -> bool:
    """FFmpeg's "no time stamp" is a huge negative number; frames in display order never go back in time."""
    return bool(np.isfinite(raw_s).all() and (np.abs(raw_s) < 1e9).all() and (np.diff(raw_s) >= 0).all())


class DecordFrames:
    """decord, one thread, CPU. counted: read the whole file first to learn how many frames really come out.

    Raises EngineFailure when decord cannot open or decode the file or is not to be trusted with it.
    """

    engine = "decord"

    def __init__(self, path: Path, head: bytes, *, counted: bool = False) -> None:
        if not keeps_count_in_decord(head):
            raise EngineFailure("decord loses count of frames in this container")
        self._path = path
        self._reader = self._open()
        try:
            listed = len(self._reader)
            raw_s = np.asarray(self._reader.get_frame_timestamp(np.arange(listed)), np.float64).reshape(listed, 2)[:, 0]
            self._keyframes = [int(index) for index in self._reader.get_key_indices()]
            fps = float(self._reader.get_avg_fps())
        except (decord.DECORDError, RuntimeError) as error:
            raise EngineFailure(first_line(error)) from error
        end_s = shown_until_s(path)
        usable = _are_presentation_times(raw_s)
        hidden = usable and (bool((raw_s < 0).any()) or (end_s is not None and bool((raw_s >= end_s).any())))
        self.counted = counted or not usable or hidden or (listed > 0 and self._keyframes[:1] != [0])
        if self.counted:
            raw_s = self._shown(raw_s, end_s) if usable else raw_s[: self._count()]
        self.times_s = presentation_times_s(raw_s, fps)

    def _open(self) -> Any:
        try:
            return decord.VideoReader(str(self._path), ctx=decord.cpu(0), num_threads=1, fault_tol=FAULT_TOLERANCE)
        except (decord.DECORDError, RuntimeError) as error:
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
        except (decord.DECORDError, RuntimeError) as error:
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
        """As FrameSource.fetch. Raises EngineFailure when decoding fails, RepeatedFrames past the last real frame.

        Unless that takes a long jump, the file is read to its end even when the last window lies before it: whether a damaged or cut
        file is refused must not depend on which passes are asked for.
        """
        reader, position = self._reader or self._open(), 0
        self._reader = None
        last = len(self.times_s) - 1
        try:
            for index in indices:
                frame = self._read(reader, position, index)
                position = index + 1
                yield index, without_padding(frame.asnumpy())
            if not self.counted and position <= last < position + LONG_JUMP_FRAMES:
                self._read(reader, position, last)
        except decord.DECORDLimitReachedError as error:
            raise RepeatedFrames(first_line(error)) from error
        except (decord.DECORDError, RuntimeError) as error:
            raise EngineFailure(first_line(error)) from error

    def _read(self, reader: Any, position: int, index: int) -> Any:
        self._advance(reader, position, index)
        frame = reader.next()
        if len(frame.shape) != 3:
            raise RepeatedFrames(f"no frame {index} comes out of the decoder")
        return frame

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
    """[H, W, 3] of what decord returns: for some narrow frames (16, 24, 48 px) it takes padded rows for more than 3 channels."""
    height, width, channels = frame_hwc.shape
    if channels == 3:
        return frame_hwc
    return np.ascontiguousarray(frame_hwc.reshape(height, width * channels)[:, : width * 3]).reshape(height, width, 3)


class PyAVFrames:
    """PyAV, one thread. Raises Reject: behind it there is no other engine."""

    engine = "pyav"

    def __init__(self, path: Path, head: bytes) -> None:
        self._av = import_av()
        self._path = path
        self._head = head
        stamps: list[float] = []
        fps = FALLBACK_FPS
        for frame, stream in self._decode():
            stamps.append(np.nan if frame.pts is None else float(frame.pts * frame.time_base))
            fps = float(stream.average_rate or FALLBACK_FPS)
        self.times_s = presentation_times_s(np.asarray(stamps, np.float64), fps)

    def _decode(self) -> Iterator[tuple[Any, Any]]:
        try:
            with self._av.open(str(self._path)) as container:
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


def first_line(error: BaseException) -> str:
    """The first line of a library's message without its time stamp, source location and stack trace."""
    message = getattr(error, "strerror", None) or str(error)
    lines = str(message).strip().splitlines() or [type(error).__name__]
    line = re.sub(r"^\[\d\d:\d\d:\d\d\] \S+: ", "", lines[0])
    return line if len(line) <= 200 else line[:197] + "..."

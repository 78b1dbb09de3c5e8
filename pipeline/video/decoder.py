"""Videos to windows through a decoding process that may be killed.

Comes in: a `Video`, the passes wanted of it, the settings of the set, a deadline. Goes out: a `DecodedVideo` whose anchors stream
from the child one at a time, or a `Reject` that says why there are none.

    parent (worker)                         child (pipeline.video.child)
    Decoder.windows ── DecodeRequest ─────▶ stamps → anchors → one sweep of decoding → squares
                    ◀── DecodeHeader ─────  (or DecodeRefusal)
    DecodedAnchor   ◀── raw bytes ────────  one message per pass; the socket's buffer holds the child back

Video libraries hang and crash on damaged files, and neither can be caught in-process. So decoding runs in a process of its
own, started at the first video: past the deadline it is killed, if it dies by itself that is noticed, and the next video gets a
fresh one. It dies with its parent. It is replaced after MAX_VIDEOS_PER_CHILD videos, so that a slow leak in a library cannot add up.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pipeline.video.child_process import ChildProcess
from pipeline.video.datasets import LISTED_FRAMES_FPS, Video
from pipeline.video.messages import (
    DecodeRefusal,
    DecodeRequest,
    VideoFacts,
    WindowFrames,
    answer_from_bytes,
    message_layout,
)
from pipeline.video.rejects import Reject
from pipeline.window import Window
from shards.schema import Settings

MAX_VIDEOS_PER_CHILD = 200
DEADLINE_S = 120.0
TRANSFER_DEADLINE_S = 60.0


@dataclass(frozen=True)
class DecodedAnchor:
    """One window of one pass. image_hwc: the anchor [I, I, 3] uint8 RGB. neighbour_images_khwc: [K, I, I, 3] uint8 or None."""

    pass_index: int
    window: Window
    image_hwc: NDArray[np.uint8]
    neighbour_images_khwc: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class DecodedVideo:
    """facts: of the whole video. decode_s: wall time in the child.

    anchors: one per pass, in the order asked for; may be walked once, and only until the Decoder's next call.
    """

    video: Video
    facts: VideoFacts
    decode_s: float
    anchors: Iterator[DecodedAnchor]


class Decoder:
    """Owner of one decoding process. Use as a context manager, or call close().

    Not for use by several threads at once. The child is bound to the thread that first calls `windows`: on Linux it is killed when that
    thread ends (and then replaced).
    """

    def __init__(self, *, max_videos_per_child: int = MAX_VIDEOS_PER_CHILD) -> None:
        self._max_videos = max_videos_per_child
        self._child: ChildProcess | None = None
        self.children_started = 0

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def child_pid(self) -> int | None:
        """Process id of the decoding process, if one is running."""
        return self._child.process.pid if self._child is not None and self._child.alive() else None

    def windows(
        self, video: Video, passes: Sequence[int], settings: Settings, *, deadline_s: float = DEADLINE_S
    ) -> DecodedVideo:
        """Decode what the passes need of one video. When this returns all decoding is done; `anchors` only transfers.

        Raises Reject when the video yields nothing (its `seconds` is the time spent), ChildProcessError when the decoding process
        cannot be started at all, ValueError for passes or a deadline that make no sense.
        """
        if not passes or min(passes) < 0:
            raise ValueError(f"passes must be a non-empty list of numbers from 0, got {list(passes)}")
        if not deadline_s > 0:
            raise ValueError(f"deadline_s must be positive, got {deadline_s}")
        request = _request(video, passes, settings)
        child = self._ready_child()
        answer = answer_from_bytes(self._ask(child, request.to_bytes(), video, deadline_s))
        if isinstance(answer, DecodeRefusal):
            raise Reject(answer.reason, answer.detail, seconds=answer.decode_s)
        child.pending = len(request.passes)
        return DecodedVideo(video, answer.facts, answer.decode_s, self._receive(child, video, request, answer.windows))

    def close(self) -> None:
        """End the decoding process. The Decoder may be used again afterwards."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _ready_child(self) -> ChildProcess:
        """The running child if it is idle, ours, alive and not yet due for replacement; else a new one."""
        child = self._child
        if child is not None and child.owner_pid != os.getpid():
            # A fork of the process that started it: leave the child to its owner.
            child = self._child = None
        if child is None or child.pending or child.videos >= self._max_videos or not child.alive():
            self.close()
            child = self._child = ChildProcess()
            self.children_started += 1
        child.videos += 1
        child.forget_stderr()
        return child

    def _ask(self, child: ChildProcess, request: bytes, video: Video, deadline_s: float) -> bytes:
        began = time.perf_counter()
        try:
            child.connection.send_bytes(request)
            if child.connection.poll(deadline_s):
                return child.connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._crashed(child, video, time.perf_counter() - began) from error
        noise = child.last_stderr_line()
        self.close()
        detail = f"{video.path} was not decoded within {deadline_s:g} s{noise}"
        raise Reject("timeout", detail, seconds=time.perf_counter() - began)

    def _crashed(self, child: ChildProcess, video: Video, seconds: float) -> Reject:
        ended = child.how_it_ended()
        noise = child.last_stderr_line()
        self.close()
        return Reject("decoder_crashed", f"decoding {video.path} ended its process {ended}{noise}", seconds=seconds)

    def _receive(
        self, child: ChildProcess, video: Video, request: DecodeRequest, windows: Sequence[WindowFrames]
    ) -> Iterator[DecodedAnchor]:
        shapes = message_layout(request.image_size, request.flow_size, len(request.offsets), request.keep_neighbours)
        sizes = [int(np.prod(shape)) for shape in shapes]
        for pass_index, frames in zip(request.passes, windows, strict=True):
            buffer = np.empty(sum(sizes), np.uint8)
            if self._child is not child:
                raise RuntimeError("the anchors of a video must be read before the decoder's next call")
            try:
                if not child.connection.poll(TRANSFER_DEADLINE_S):
                    raise EOFError("the decoding process stopped sending")
                received = child.connection.recv_bytes_into(buffer.data)
            except (EOFError, OSError) as error:
                raise self._crashed(child, video, 0.0) from error
            assert received == buffer.nbytes, (received, buffer.nbytes)
            child.pending -= 1
            flat = np.split(buffer, np.cumsum(sizes)[:-1])
            parts = [part.reshape(shape) for part, shape in zip(flat, shapes, strict=True)]
            yield DecodedAnchor(
                pass_index=pass_index,
                window=Window(
                    video_id=video.id,
                    path=video.path,
                    offsets=request.offsets,
                    anchor_index=frames.anchor_index,
                    neighbour_indices=frames.neighbour_indices,
                    anchor_time_s=frames.anchor_time_s,
                    neighbour_times_s=frames.neighbour_times_s,
                    anchor_hwc=parts[1],
                    neighbours_khwc=parts[2],
                ),
                image_hwc=parts[0],
                neighbour_images_khwc=parts[3] if len(parts) > 3 else None,
            )


def _request(video: Video, passes: Sequence[int], settings: Settings) -> DecodeRequest:
    """The part of the settings that decoding depends on."""
    return DecodeRequest(
        video_id=video.id,
        path=str(video.path),
        kind=video.kind,
        fps=(video.fps or LISTED_FRAMES_FPS) if video.kind == "frames" else None,
        passes=tuple(int(p) for p in passes),
        seed=settings.seed,
        offsets=settings.offsets,
        image_size=settings.image_size,
        flow_size=settings.flow_size,
        keep_neighbours=settings.keep_neighbours,
    )

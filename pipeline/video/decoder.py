"""Videos to windows through a decoding process that may be killed.

Comes in: a `Video`, the passes wanted of it, the settings of the set, a deadline. Goes out: a `DecodedVideo` whose anchors stream
from the child one at a time, or a `Reject` that says why there are none.

    parent                                  child (pipeline.video.child)
    Decoder.windows ── DecodeRequest ─────▶ stamps → anchors → one sweep of decoding → squares
                                            squares ─▶ arena, at the places that the request names
                    ◀── DecodeHeader ─────  (or DecodeRefusal)
    DecodedAnchor   ◀── arena

Video libraries hang and crash on damaged files, and neither can be caught in-process. So decoding runs in a process of its
own, started at the first video: past the deadline it is killed, also in the middle of a message, if it dies by itself that is noticed,
and the next video gets a fresh one. It dies with its parent. It is replaced when its memory has grown, and after MAX_VIDEOS_PER_CHILD
videos, so that a slow leak in a library cannot add up.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pipeline.video.arena import Arena
from pipeline.video.child_process import ChildProcess
from pipeline.video.cut_rule import rule_of
from pipeline.video.datasets import LISTED_FRAMES_FPS, Video
from pipeline.video.messages import (
    DecodeHeader,
    DecodeRefusal,
    DecodeRequest,
    PixelLayout,
    VideoFacts,
    WindowFrames,
    answer_from_bytes,
)
from pipeline.video.rejects import Reject
from pipeline.window import Window
from shards.schema import Settings

MAX_VIDEOS_PER_CHILD = 2000
DEADLINE_S = 120.0


@dataclass(frozen=True)
class DecodedAnchor:
    """One window of one pass. image_hwc: the anchor [I, I, 3] uint8 RGB. neighbour_images_khwc: [K, I, I, 3] uint8 or None."""

    pass_index: int
    window: Window
    image_hwc: NDArray[np.uint8]
    neighbour_images_khwc: NDArray[np.uint8] | None = None

    def copy(self) -> DecodedAnchor:
        """With arrays of its own."""
        window = replace(
            self.window, anchor_hwc=self.window.anchor_hwc.copy(), neighbours_khwc=self.window.neighbours_khwc.copy()
        )
        kept = None if self.neighbour_images_khwc is None else self.neighbour_images_khwc.copy()
        return DecodedAnchor(self.pass_index, window, self.image_hwc.copy(), kept)


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
        self._arena = Arena()
        self._asked = 0
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
        if not 0 < deadline_s < math.inf:
            raise ValueError(f"deadline_s must be a positive number of seconds, got {deadline_s}")
        request = request_of(video, passes, settings)
        self._arena.grow(request.layout.size * len(request.passes))
        child = self._ready_child()
        answer = self._ask(child, request, video, deadline_s)
        if isinstance(answer, DecodeRefusal):
            raise Reject(answer.reason, answer.detail, seconds=answer.decode_s)
        return DecodedVideo(
            video, answer.facts, answer.decode_s, self._anchors(video, request, answer.windows, self._asked)
        )

    def close(self) -> None:
        """End the decoding process. The Decoder may be used again afterwards."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _ready_child(self) -> ChildProcess:
        """The running child if it is ours, alive and not yet due for replacement; else a new one."""
        child = self._child
        if child is not None and child.owner_pid != os.getpid():
            # A fork of the process that started it: leave the child and its arena to their owner.
            child = self._child = None
            size = os.fstat(self._arena.descriptor).st_size
            self._arena = Arena()
            self._arena.grow(size)
        if child is None or child.is_due(self._max_videos) or not child.alive():
            self.close()
            child = self._child = ChildProcess(self._arena.descriptor)
            child.wait_until_ready()
            self.children_started += 1
        child.forget_stderr()
        return child

    def _ask(
        self, child: ChildProcess, request: DecodeRequest, video: Video, deadline_s: float
    ) -> DecodeHeader | DecodeRefusal:
        began = time.perf_counter()
        self._asked += 1
        try:
            child.send(request.to_bytes())
            message = child.wait(deadline_s)
            if message is not None:
                return answer_from_bytes(message)
        except (EOFError, OSError, ValueError) as error:
            refusal = crashed(child, video, time.perf_counter() - began)
            self.close()
            raise Reject(refusal.reason, refusal.detail, seconds=refusal.decode_s) from error
        refusal = timed_out(child, video, deadline_s, time.perf_counter() - began)
        self.close()
        raise Reject(refusal.reason, refusal.detail, seconds=refusal.decode_s)

    def _anchors(
        self, video: Video, request: DecodeRequest, windows: Sequence[WindowFrames], asked: int
    ) -> Iterator[DecodedAnchor]:
        for pass_index, place, frames in zip(request.passes, request.places, windows, strict=True):
            if self._asked != asked:
                raise RuntimeError("the anchors of a video must be read before the decoder's next call")
            found = stored_anchor(self._arena, place, request.layout, video, request.offsets, pass_index, frames)
            yield found.copy()


def stored_anchor(
    arena: Arena,
    place: int,
    layout: PixelLayout,
    video: Video,
    offsets: tuple[int, ...],
    pass_index: int,
    frames: WindowFrames,
) -> DecodedAnchor:
    """The window that a decoding process has put at `place`; its arrays are views of the arena."""
    arrays = []
    for shape in layout.shapes:
        arrays.append(arena.read(place, shape).view(np.uint8))
        place += arrays[-1].nbytes
    window = Window(
        video_id=video.id,
        path=video.path,
        offsets=offsets,
        anchor_index=frames.anchor_index,
        neighbour_indices=frames.neighbour_indices,
        anchor_time_s=frames.anchor_time_s,
        neighbour_times_s=frames.neighbour_times_s,
        anchor_hwc=arrays[1],
        neighbours_khwc=arrays[2],
    )
    return DecodedAnchor(pass_index, window, arrays[0], arrays[3] if layout.keep_neighbours else None)


def crashed(child: ChildProcess, video: Video, seconds: float) -> DecodeRefusal:
    """What is said of a video whose decoding process ended."""
    ended, noise = child.how_it_ended(), child.last_stderr_line()
    return DecodeRefusal("decoder_crashed", f"decoding {video.path} ended its process {ended}{noise}", seconds)


def timed_out(child: ChildProcess, video: Video, deadline_s: float, seconds: float) -> DecodeRefusal:
    """What is said of a video that was not decoded in time."""
    detail = f"{video.path} was not decoded within {deadline_s:g} s{child.last_stderr_line()}"
    return DecodeRefusal("timeout", detail, seconds)


def request_of(
    video: Video, passes: Sequence[int], settings: Settings, places: Sequence[int] | None = None
) -> DecodeRequest:
    """The part of the settings that decoding depends on. places: offsets in the arena, by default one behind the other."""
    layout = layout_of(settings)
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
        cuts=rule_of(settings),
        places=tuple(places if places is not None else range(0, layout.size * len(passes), layout.size)),
    )


def layout_of(settings: Settings) -> PixelLayout:
    """How the pixels of one pass lie in the arena."""
    return PixelLayout(settings.image_size, settings.flow_size, len(settings.offsets), settings.keep_neighbours)

"""Many decoding processes at once, none of which can hold up anybody: started when there is work, killed at a deadline, replaced.

Comes in: a video with a place in the arena for each pass. Goes out: its facts, or why it yields nothing. A video whose process hangs or
dies is tried once more in a fresh process; others go on meanwhile. A process whose memory has grown, or that has had its share of
videos, is replaced, so that a slow leak in a library cannot add up.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from pipeline.extract.runner import ExtractionError
from pipeline.extract.stages import TRIED_AGAIN
from pipeline.video.arena import Arena
from pipeline.video.child_process import STARTUP_DEADLINE_S, ChildProcess
from pipeline.video.datasets import Video
from pipeline.video.decoder import MAX_VIDEOS_PER_CHILD, crashed, request_of, timed_out
from pipeline.video.messages import DecodeHeader, DecodeRefusal, answer_from_bytes
from shards.schema import Settings

TRIES = 2
TRIES_WHEN_KILLED = 5
"""For a video whose process was killed from outside (out of memory, an operator): that says little about the video."""
STARTS = 5
"""Processes in a row that may be killed, or be too slow, before they are ready: the machine's memory may be short for a moment."""


@dataclass
class DecodeTask:
    """A video to decode. tell: called with what came of it."""

    video: Video
    passes: Sequence[int]
    settings: Settings
    places: Sequence[int]
    deadline_s: float
    tell: Callable[[DecodeHeader | DecodeRefusal], None]
    tries: int = 0


class Ear(Protocol):
    """Something to wait on and then to hear."""

    def fileno(self) -> int: ...


class _Seat:
    """A decoding process and what it is at."""

    def __init__(self, arena: Arena) -> None:
        self.child = ChildProcess(arena.descriptor)
        self.task: DecodeTask | None = None
        self.began = 0.0

    @property
    def due(self) -> float:
        """When it will have hung, by time.monotonic."""
        if not self.child.ready:
            return self.child.started + STARTUP_DEADLINE_S
        return self.began + self.task.deadline_s if self.task is not None else float("inf")


class DecodingPool:
    """At most `most` decoding processes at work. They are bound to the thread that calls `submit` and `heard`."""

    def __init__(self, arena: Arena, most: int, *, videos_per_child: int = MAX_VIDEOS_PER_CHILD) -> None:
        self._arena, self._most, self._videos_per_child = arena, most, videos_per_child
        self._seats: list[_Seat] = []
        self._queue: deque[DecodeTask] = deque()
        self._stillborn = 0

    @property
    def idle(self) -> int:
        """How many more videos could be at work at once."""
        return self._most - len(self._queue) - sum(seat.task is not None for seat in self._seats)

    @property
    def children(self) -> list[ChildProcess]:
        """The processes."""
        return [seat.child for seat in self._seats]

    @property
    def ears(self) -> list[Ear]:
        """What to wait on, and then to give to `heard`."""
        return list(self.children)

    @property
    def next_deadline(self) -> float:
        """When `expire` has something to do, by time.monotonic."""
        return min((seat.due for seat in self._seats), default=float("inf"))

    def warm_up(self) -> None:
        """Start a process, so that it is there when the first video comes."""
        if not self._seats:
            self._seats.append(_Seat(self._arena))

    def expect(self, videos: Iterable[Video]) -> None:
        """What will be submitted, in this order: nothing to prepare for files that are here."""

    def submit(self, task: DecodeTask) -> None:
        """Decode it, as soon as a process is free."""
        self._queue.append(task)
        self._dispatch()

    def _dispatch(self) -> None:
        for seat in [seat for seat in self._seats if seat.child.ready and seat.task is None]:
            if self._queue:
                self._give(seat, self._queue.popleft())
        starting = sum(not seat.child.ready for seat in self._seats)
        working = sum(seat.task is not None for seat in self._seats)
        for _ in range(min(len(self._queue) - starting, self._most - working - starting)):
            self._seats.append(_Seat(self._arena))

    def _give(self, seat: _Seat, task: DecodeTask) -> None:
        task.tries += 1
        seat.task, seat.began = task, time.monotonic()
        seat.child.forget_stderr()
        # One that has died meanwhile is found when it is listened to.
        with suppress(OSError):
            request = request_of(task.video, task.passes, task.settings, task.places)
            seat.child.send(request.to_bytes())

    def heard(self, ear: Ear) -> None:
        """Something has arrived from it, or it is gone."""
        seat = next((seat for seat in self._seats if seat.child is ear), None)
        if seat is None:  # killed since
            return
        try:
            answers = [answer_from_bytes(message) for message in seat.child.hear()]
        except BlockingIOError:
            return
        except (EOFError, OSError, ValueError):
            self._lost(seat, crashed)
            return
        if seat.child.ready:
            self._stillborn = 0
        for answer in answers:
            self._finish(seat, answer)
        self._dispatch()

    def _finish(self, seat: _Seat, answer: DecodeHeader | DecodeRefusal) -> None:
        task = seat.task
        if task is None:
            return
        seat.task = None
        if seat.child.is_due(self._videos_per_child):
            self._seats.remove(seat)
            seat.child.kill()
        task.tell(answer)

    def expire(self) -> None:
        """Kill whatever is past its deadline."""
        now = time.monotonic()
        for seat in [seat for seat in self._seats if seat.due <= now]:
            deadline_s = seat.task.deadline_s if seat.task is not None else STARTUP_DEADLINE_S
            self._lost(seat, partial(timed_out, deadline_s=deadline_s))

    def _lost(self, seat: _Seat, explain: Callable[..., DecodeRefusal]) -> None:
        self._seats.remove(seat)
        if not seat.child.ready:
            self._not_started(seat)
            return
        task = seat.task
        if task is None:  # died between videos: nobody's fault
            seat.child.kill()
            self._dispatch()
            return
        killed = seat.child.process.poll() == -signal.SIGKILL
        refusal = explain(seat.child, task.video, seconds=time.monotonic() - seat.began)
        seat.child.kill()
        assert refusal.reason in TRIED_AGAIN
        again = task.tries < (TRIES_WHEN_KILLED if killed else TRIES)
        if again:
            self._queue.appendleft(task)
        self._dispatch()
        if not again:
            task.tell(refusal)

    def _not_started(self, seat: _Seat) -> None:
        """Raises ExtractionError where it ended by itself, which others would too, or where it has happened too often."""
        ended_itself = (seat.child.process.poll() or 0) > 0
        self._stillborn += 1
        error = seat.child.not_started()
        if ended_itself or self._stillborn >= STARTS:
            raise ExtractionError(str(error))
        self._dispatch()

    def close(self) -> None:
        """End all processes, videos at hand included."""
        for seat in self._seats:
            seat.child.kill()
        self._seats.clear()
        self._queue.clear()

"""One actor of a Ray cluster: an extraction engine (`local.LocalRunner`) that is given chunks and asked what has become of them.

Where data comes from: chunk jobs, over Ray. Where it goes: shards, written by the actor itself into the set's directory, which every node
must see; events, in the answers to `step`. The engine runs in a thread of its own that lives as long as the actor, because processes that
it starts die with the thread that started them.
"""

from __future__ import annotations

import logging
import os
import platform
import queue
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.extract.local import LocalRunner
from pipeline.extract.runner import ChunkJob, Event
from pipeline.flow.estimator import EstimatorChoice
from pipeline.video.remote_videos import RemoteVideos
from shards.storage import StorageError

log = logging.getLogger(__name__)

POLL_S = 1.0


@dataclass(frozen=True)
class Ready:
    """An actor's first words. refusal: why it cannot work, in one line."""

    host: str
    refusal: str = ""


@dataclass(frozen=True)
class Step:
    """What has happened since the last answer. busy: whether chunks are still being made. broken: what stopped the engine, and where.
    ends_run: why no other engine could go on, for the user."""

    events: tuple[Event, ...]
    busy: bool
    broken: str = ""
    trace: str = ""
    ends_run: str = ""


class _Stopped(Exception):
    """The driver has had enough."""


class Engine:
    """The actor. home: the driver's working directory, which relative paths start from. Otherwise as `LocalRunner`."""

    def __init__(
        self,
        home: str,
        workers: int,
        choice: EstimatorChoice,
        devices: Sequence[str],
        remote: tuple[RemoteVideos, int] | None = None,
    ) -> None:
        if os.path.isdir(home):
            os.chdir(home)  # else `unseen` names what cannot be found
        self._jobs: queue.SimpleQueue[Sequence[ChunkJob] | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[Event | Step] = queue.SimpleQueue()
        self._built: queue.SimpleQueue[Ready] = queue.SimpleQueue()
        self._busy = False
        self._stop = threading.Event()
        self._arguments = (workers, choice, tuple(devices), remote)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            remote = self._arguments[-1]
            with remote[0].fetching() if remote is not None else nullcontext(), LocalRunner(*self._arguments) as runner:
                try:
                    runner.prepare(1)
                except Exception as error:
                    self._built.put(Ready(platform.node(), f"{error}"))
                    return
                self._built.put(Ready(platform.node()))
                while (jobs := self._jobs.get()) is not None:
                    runner.run(jobs, self._tell)
                    self._events.put(Step((), busy=False))
        except _Stopped:
            pass
        except Exception as error:
            log.exception("the engine has stopped")
            self._built.put(Ready(platform.node(), f"{error}"))  # heard where it could not even begin
            trace = "".join(traceback.format_exception(error))
            # Storage that gives nothing any more gives nothing to other actors either.
            ends_run = str(error) if isinstance(error.__cause__, StorageError) else ""
            self._events.put(Step((), False, f"{type(error).__name__}: {error}", trace, ends_run))

    def _tell(self, event: Event) -> None:
        self._events.put(event)
        if self._stop.is_set():
            raise _Stopped

    def ready(self) -> Ready:
        """Waits until the estimator is built, or cannot be."""
        return self._built.get()

    def unseen(self, paths: Sequence[Path], wait_s: float) -> str:
        """The first of these that is there for the driver and not on this node; empty where all are."""
        until = time.monotonic() + wait_s
        while (missing := next((path for path in paths if not path.exists()), None)) and time.monotonic() < until:
            time.sleep(0.2)  # a network file system may take its time to show what is new
        return str(missing or "")

    def step(self, jobs: Sequence[ChunkJob]) -> Step:
        """Begin these, where there are any, and say what has happened: at once if anything has, else after POLL_S."""
        if jobs:
            assert not self._busy, "an actor has one list of jobs at a time"
            self._busy = True
            self._jobs.put(jobs)
        events: list[Event] = []
        until = time.monotonic() + POLL_S
        while self._busy:
            try:
                found = self._events.get(timeout=0.0 if events else max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if isinstance(found, Step):
                self._busy = False
                return replace(found, events=tuple(events))
            events.append(found)
        return Step(tuple(events), self._busy)

    def stop(self) -> None:
        """End what is under way; a commit that has begun comes to its end."""
        self._stop.set()
        self._jobs.put(None)
        self._thread.join()

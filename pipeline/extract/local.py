"""Chunks → worker processes on this machine, with nothing lost when one of them dies.

Each worker is a spawned process with its own estimator and decoder child. The parent hands out one chunk at a
time over a pipe and hears of every video that ends. A worker that dies (killed, out of memory) costs its chunk
one more try in a fresh worker; a second death fails the chunk. Workers die with the parent.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType

from common.parent_death import die_with
from pipeline.extract.runner import ChunkDone, ChunkFailed, ChunkJob, Event, ExtractionError
from pipeline.extract.stages import run_job
from pipeline.flow.estimator import EstimatorChoice
from pipeline.video.decoder import Decoder

TRIES = 2


@dataclass(frozen=True)
class WorkerReady:
    """A worker's first words. refusal: why it cannot work, in one line."""

    refusal: str = ""


def _worker(connection: Connection, parent_pid: int, threads: int) -> None:
    die_with(parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        # Received here, not as an argument: unpickling it may import torch, which reads the number of threads only then.
        choice: EstimatorChoice = connection.recv()
        estimator = choice.build()
    except Exception as error:
        connection.send(WorkerReady(f"the flow estimator cannot be built: {type(error).__name__}: {error}"))
        return
    connection.send(WorkerReady())
    with Decoder() as decoder:
        while True:
            try:
                job: ChunkJob | None = connection.recv()
            except EOFError:
                return
            if job is None:
                return
            connection.send(run_job(job, decoder, estimator, connection.send))


@dataclass
class _Slot:
    """A worker. job: what it is at; None while it starts, and when there is nothing left."""

    process: BaseProcess
    connection: Connection
    job: ChunkJob | None = None
    starting: bool = True


class LocalRunner:
    """A `Runner` of `workers` processes. Raises ValueError when that is none."""

    def __init__(self, workers: int, choice: EstimatorChoice) -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers}; it must be at least 1")
        self.workers, self.choice = workers, choice
        self._context = get_context("spawn")
        self._slots: list[_Slot] = []
        self._queue: deque[ChunkJob] = deque()
        self._tries: dict[int, int] = {}

    def __enter__(self) -> LocalRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for slot in self._slots:
            slot.process.kill()
        for slot in self._slots:
            slot.process.join()
        self._slots.clear()

    def _start(self) -> _Slot:
        ours, theirs = self._context.Pipe()
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        process = self._context.Process(target=_worker, args=(theirs, os.getpid(), threads))
        process.start()
        theirs.close()
        with suppress(OSError):  # a worker that is dead already is found when it is listened to
            ours.send(self.choice)
        return _Slot(process, ours)

    def prepare(self, jobs: int) -> None:
        """Start the workers and wait until the first has built its estimator."""
        self._slots = [self._start() for _ in range(min(self.workers, jobs))]
        if self._slots:
            first = wait([slot.connection for slot in self._slots])[0]
            self._welcome(next(slot for slot in self._slots if slot.connection is first))

    def _welcome(self, slot: _Slot) -> None:
        try:
            ready: WorkerReady = slot.connection.recv()
        except (EOFError, OSError):
            slot.process.join()
            raise ExtractionError(
                f"a worker died while building the flow estimator (exit code {slot.process.exitcode}; -9 often means out of "
                "memory): use fewer --workers"
            ) from None
        if ready.refusal:
            raise ExtractionError(ready.refusal)
        slot.starting = False

    def run(self, jobs: Sequence[ChunkJob], on_event: Callable[[Event], None]) -> None:
        """Make all chunks with the workers that `prepare` has started, or with new ones where it had nothing to start them for."""
        if jobs and not self._slots:
            self.prepare(len(jobs))
        self._queue, self._tries = deque(jobs), dict.fromkeys((job.chunk for job in jobs), 0)
        for slot in self._slots:
            if not slot.starting:
                self._give(slot)
        while self._queue or any(slot.job for slot in self._slots):
            for connection in wait([slot.connection for slot in self._slots if slot.job or slot.starting]):
                self._hear(next(slot for slot in self._slots if slot.connection is connection), on_event)

    def _hear(self, slot: _Slot, on_event: Callable[[Event], None]) -> None:
        if slot.starting:
            self._welcome(slot)
            self._give(slot)
            return
        try:
            event: Event = slot.connection.recv()
        except (EOFError, OSError):
            self._replace(slot, on_event)
            return
        on_event(event)
        if isinstance(event, ChunkDone | ChunkFailed):
            self._give(slot)

    def _give(self, slot: _Slot) -> None:
        """The next job, or the news that there is none."""
        slot.job = self._queue.popleft() if self._queue else None
        if slot.job:
            self._tries[slot.job.chunk] += 1
        with suppress(OSError):  # one that has died meanwhile is found when it is listened to
            slot.connection.send(slot.job)

    def _replace(self, slot: _Slot, on_event: Callable[[Event], None]) -> None:
        """A fresh worker for one that died; its job goes back to the front of the queue, unless it has killed enough."""
        slot.process.join()
        job = slot.job
        assert job is not None
        if self._tries[job.chunk] < TRIES:
            self._queue.appendleft(job)
        else:
            message = (
                f"the worker for chunk {job.chunk} died {TRIES} times (exit code {slot.process.exitcode}; -9 often means out of "
                "memory): use fewer --workers or a smaller --batch and rerun; chunks that have landed are safe"
            )
            on_event(ChunkFailed(job.chunk, message))
        fresh = self._start()
        slot.process, slot.connection, slot.job, slot.starting = fresh.process, fresh.connection, None, True

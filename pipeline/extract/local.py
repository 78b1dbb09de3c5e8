"""Chunks → worker processes on this machine, with nothing lost when one of them dies.

Each worker is a spawned process with its own estimator and decoder child. The parent hands out one chunk at a
time over a pipe and hears of every video that ends. A worker that dies (killed, out of memory) costs its chunk
one more try in a fresh worker; a second death is an error that names the chunk. Workers die with the parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from pipeline.extract.stages import ChunkJob, VideoReport, extract_chunk
from pipeline.flow.estimator import EstimatorChoice

TRIES = 2


class ExtractionError(RuntimeError):
    """A chunk that could not be made; what had landed before is safe."""


@dataclass(frozen=True)
class ChunkDone:
    """Told by a worker when its chunk has landed."""

    chunk: int


@dataclass(frozen=True)
class ChunkFailed:
    """Told by a worker when its chunk could not be made."""

    chunk: int
    message: str


Event = VideoReport | ChunkDone | ChunkFailed


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, however that happens (Linux; elsewhere the pipe's end tells)."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _worker(connection: Connection, threads: int) -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    os.environ["OMP_NUM_THREADS"] = str(threads)
    from pipeline.video.decoder import Decoder

    # Received here, not as an argument: unpickling it may import torch, which reads the number of threads only then.
    choice: EstimatorChoice = connection.recv()
    estimator = choice.build()
    with Decoder() as decoder:
        while True:
            try:
                job: ChunkJob | None = connection.recv()
            except EOFError:
                return
            if job is None:
                return
            try:
                extract_chunk(job, decoder, estimator, connection.send)
            except (ValueError, OSError, RuntimeError) as error:
                connection.send(ChunkFailed(job.chunk, _explain(job, error)))
            else:
                connection.send(ChunkDone(job.chunk))


def _explain(job: ChunkJob, error: Exception) -> str:
    from shards.files import full_disk

    if isinstance(error, OSError) and full_disk(error):
        return f"no space left on the device of {job.root}: free some and rerun the same command; chunks that have landed are safe"
    return f"chunk {job.chunk}: {type(error).__name__}: {error}"


@dataclass
class _Slot:
    process: BaseProcess
    connection: Connection
    job: ChunkJob | None = None


class LocalRunner:
    """Runs chunk jobs in `workers` processes. Use as a context manager: leaving it ends the workers."""

    def __init__(self, workers: int, choice: EstimatorChoice) -> None:
        self.workers, self.choice = workers, choice
        self._context = get_context("spawn")
        self._slots: list[_Slot] = []

    def __enter__(self) -> LocalRunner:
        return self

    def __exit__(self, *_: object) -> None:
        for slot in self._slots:
            slot.process.kill()
        for slot in self._slots:
            slot.process.join()
        self._slots.clear()

    def _start(self) -> _Slot:
        ours, theirs = self._context.Pipe()
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        process = self._context.Process(target=_worker, args=(theirs, threads))
        process.start()
        theirs.close()
        ours.send(self.choice)
        return _Slot(process, ours)

    def run(self, jobs: Sequence[ChunkJob], on_event: Callable[[Event], None]) -> None:
        """Make all chunks. Raises ExtractionError at the first chunk that cannot be made; others that landed stay."""
        queue, tries = deque(jobs), dict.fromkeys((j.chunk for j in jobs), 0)
        self._slots = [self._start() for _ in range(min(self.workers, len(jobs)))]
        for slot in self._slots:
            self._give(slot, queue, tries)
        while any(slot.job for slot in self._slots):
            busy = {slot.connection: slot for slot in self._slots if slot.job}
            for connection in wait(list(busy)):
                slot = busy[connection]  # type: ignore[index]
                try:
                    event: Event = slot.connection.recv()
                except (EOFError, OSError):
                    self._replace(slot, queue, tries)
                    continue
                if isinstance(event, ChunkFailed):
                    raise ExtractionError(event.message)
                on_event(event)
                if isinstance(event, ChunkDone):
                    self._give(slot, queue, tries)

    def _give(self, slot: _Slot, queue: deque[ChunkJob], tries: dict[int, int]) -> None:
        slot.job = queue.popleft() if queue else None
        if slot.job:
            tries[slot.job.chunk] += 1
        slot.connection.send(slot.job)

    def _replace(self, slot: _Slot, queue: deque[ChunkJob], tries: dict[int, int]) -> None:
        slot.process.join()
        job = slot.job
        assert job is not None
        if tries[job.chunk] >= TRIES:
            raise ExtractionError(
                f"the worker for chunk {job.chunk} died {TRIES} times (exit code {slot.process.exitcode}; -9 often means out of memory): "
                "use fewer --workers or a smaller --batch and rerun; chunks that have landed are safe"
            )
        queue.appendleft(job)
        fresh = self._start()
        slot.process, slot.connection = fresh.process, fresh.connection
        self._give(slot, queue, tries)

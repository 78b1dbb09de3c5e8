"""Batches of decoded samples: worker processes fill preallocated shared slots, the training process looks at them.

No array ever passes through a pipe, nothing is left behind in /dev/shm, and pages are touched once per run
(`trainer.batch`). The training process sends a worker two integers (slot, step); the worker derives from them which samples
to read (`trainer.order`), decodes its rows of the batch in place and answers. Every worker has a pipe of its own and there
are no locks: a worker that is killed cannot take one with it, and its death is seen at once. A worker whose parent is gone
reads end-of-file and leaves.

A sample that cannot be read is replaced by the next one in order, so the batch is the same for any number of workers; it
comes back in `Batch.failures`, for the log.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from trainer.batch import Batch, LoaderError, Plan, SampleSource, Slots, fill_rows

MIN_READS_TO_JUDGE = 32


def _work(
    pipe: Connection,
    inherited: list[Connection],
    source: SampleSource,
    plan: Plan,
    slots: Slots,
    number: int,
    count: int,
) -> None:
    for end in inherited:  # or this process would keep its siblings' pipes open after the parent has died
        end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        try:
            slot, step = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            plan.announce(source, step, number, count)
            batch = slots.batch(slot, step, plan.positions(step), [])
            answer: Any = fill_rows(source, plan, batch, plan.rows(step, number, count))
        except (LoaderError, OSError) as error:
            answer = str(error)
        except Exception:  # a defect: its traceback is wanted where it can be read
            answer = traceback.format_exc()
        try:
            pipe.send((step, answer))
        except OSError:
            return


class Loader:
    """Iterate `batches(first_step)`. `workers` 0 reads in this process. Use as a context manager, or `close()`.

    `wait_s` is the time spent waiting for data so far, `reads` and `failed` count samples read and unreadable ones.
    """

    def __init__(
        self,
        source: SampleSource,
        plan: Plan,
        *,
        workers: int = 2,
        prefetch_batches: int = 4,
        timeout_s: float = 300.0,
        max_failed_share: float = 0.5,
    ) -> None:
        if not len(plan.order):
            raise ValueError("no sample of this set may be trained on: check data.offsets against what the set stores")
        if workers and "fork" not in multiprocessing.get_all_start_methods():
            raise ValueError(f"loader workers need fork, which {sys.platform} lacks: set data.workers=0")
        self.source, self.plan = source, plan
        self.timeout_s, self.max_failed_share = timeout_s, max_failed_share
        self.wait_s, self.reads, self.failed = 0.0, 0, 0
        self.slots = Slots(plan, prefetch_batches + 1 if workers else 1)  # one more: the batch being looked at
        self.processes: list[Any] = []
        self._pipes: list[Connection] = []
        self._start_workers(min(workers, plan.batch_size // plan.ranks))

    def _start_workers(self, count: int) -> None:
        context = multiprocessing.get_context("fork") if count else None
        for number in range(count):
            assert context is not None
            ours, theirs = context.Pipe()
            args = (theirs, [*self._pipes, ours], self.source, self.plan, self.slots, number, count)
            process = context.Process(target=_work, args=args, name=f"loader-{number}", daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self.processes.append(process)

    def batches(self, first_step: int = 0) -> Iterator[Batch]:
        """Batches first_step, first_step + 1, ... without end. Call once per loader."""
        if not self.processes:
            for step in _count_from(first_step):
                batch = self.slots.batch(0, step, self.plan.positions(step), [])
                started = time.perf_counter()
                self.plan.announce(self.source, step, 0, 1)
                batch.failures.extend(fill_rows(self.source, self.plan, batch, slice(None)))
                self.wait_s += time.perf_counter() - started
                yield self._judged(batch)
        pending: dict[int, list[Any]] = {}  # answers by step: a quick worker may be batches ahead of a slow one
        for step in range(first_step, first_step + self.slots.count - 1):
            self._order(step, pending)
        for step in _count_from(first_step):
            self._order(step + self.slots.count - 1, pending)
            started = time.perf_counter()
            self._await(step, pending)
            self.wait_s += time.perf_counter() - started
            failures = sorted(f for answer in pending.pop(step) for f in answer)
            yield self._judged(self.slots.batch(step % self.slots.count, step, self.plan.positions(step), failures))

    def _order(self, step: int, pending: dict[int, list[Any]]) -> None:
        assert self._pipes, "the loader was closed"
        pending[step] = []
        for number, pipe in enumerate(self._pipes):
            try:
                pipe.send((step % self.slots.count, step))
            except OSError:
                self._lost(number, step)

    def _await(self, step: int, pending: dict[int, list[Any]]) -> None:
        """Return once every worker has answered for `step`; raise if one is gone, failed or silent for too long."""
        deadline = time.monotonic() + self.timeout_s
        while len(pending[step]) < len(self.processes):
            handles = [*self._pipes, *(p.sentinel for p in self.processes)]
            ready = wait(handles, timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                raise LoaderError(
                    f"batch {step}: no answer from the loader's workers for {self.timeout_s:g} s "
                    "(storage that hangs? data.timeout_s sets the limit)"
                )
            for number, (pipe, process) in enumerate(zip(self._pipes, self.processes, strict=True)):
                if pipe in ready:
                    self._receive(number, pipe, step, pending)
                elif process.sentinel in ready:
                    self._lost(number, step)

    def _receive(self, number: int, pipe: Connection, step: int, pending: dict[int, list[Any]]) -> None:
        try:
            answered_step, answer = pipe.recv()
        except (EOFError, OSError):
            self._lost(number, step)
        if isinstance(answer, str):
            raise LoaderError(f"batch {answered_step}, loader worker {number}: {answer}")
        pending[answered_step].append(answer)

    def _lost(self, number: int, step: int) -> None:
        process = self.processes[number]
        process.join(5)
        code = process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        raise LoaderError(
            f"loader worker {number} (pid {process.pid}) {how}{hint} while batch {step} was being read; "
            "continue the run with --resume"
        )

    def _judged(self, batch: Batch) -> Batch:
        self.failed += len(batch.failures)
        self.reads += len(batch.positions) + len(batch.failures)
        if self.reads >= MIN_READS_TO_JUDGE and self.failed > self.max_failed_share * self.reads:
            raise LoaderError(
                f"{self.failed} of {self.reads} samples could not be read, more than data.max_failed_share = "
                f"{self.max_failed_share:g}; the last: {batch.failures[-1].reason if batch.failures else 'earlier'}"
            )
        return batch

    def close(self) -> None:
        """End the workers. Safe to call twice."""
        for pipe in self._pipes:
            pipe.close()
        for process in self.processes:
            process.join(0.2)
            if process.is_alive():
                process.kill()
                process.join()
        self._pipes, self.processes = [], []

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _count_from(first: int) -> Iterator[int]:
    while True:
        yield first
        first += 1

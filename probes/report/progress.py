"""What a run shows while it goes on: a live bar with rate and time left in a terminal, plain lines elsewhere.

Everything goes to standard error, so that standard output holds nothing but the result (a table, or JSON with `--json`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from probes.report.store import SequenceRecord
from probes.report.tables import sequence_mean


def done_line(number: int, total: int, sequence: str, record: SequenceRecord, sources: Sequence[str]) -> str:
    """`3/7 dog: 60 frames, J&F encoder 31.2, ...`."""
    figures = ", ".join(f"{name} {sequence_mean(record.scores[name]):.1f}" for name in sources if name in record.scores)
    return f"{number}/{total} {sequence}: {record.frames} frames, J&F {figures}"


def duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m" if whole >= 3600 else f"{whole // 60}m{whole % 60:02d}s"


QUIET_S = 30.0
"""Without a terminal, a long sequence says how far it is this often."""


class PlainWatcher:
    """One line per finished sequence, and one every half minute."""

    def __init__(self) -> None:
        self._sequences = self._steps = self._steps_done = self._finished = 0
        self._started = self._spoke = time.perf_counter()

    def begin(self, sequences: int, steps: int) -> None:
        self._sequences, self._steps = sequences, steps
        self._started = self._spoke = time.perf_counter()

    def note(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def step(self, sequence: str, steps: int) -> None:
        self._steps_done += steps
        if time.perf_counter() - self._spoke >= QUIET_S:
            self._speak(
                f"{self._finished + 1}/{self._sequences} {sequence}: {self._steps_done}/{self._steps} maps in all"
            )

    def sequence_done(self, sequence: str, record: SequenceRecord, sources: Sequence[str]) -> None:
        self._finished += 1
        self._speak(done_line(self._finished, self._sequences, sequence, record, sources))

    def _speak(self, line: str) -> None:
        self._spoke = time.perf_counter()
        rate = self._steps_done / max(1e-9, self._spoke - self._started)
        self.note(f"{line}, {rate:.2g} maps/s, {duration((self._steps - self._steps_done) / rate)} left")


class RichWatcher:
    """A bar that counts feature maps, frames times sources, and the plain watcher's lines above it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("probe", total=None, rate="")
        self._sequences = self._finished = 0
        self._started = time.perf_counter()

    def begin(self, sequences: int, steps: int) -> None:
        self._sequences = sequences
        self._started = time.perf_counter()
        self._progress.update(self._task, total=steps)

    def note(self, line: str) -> None:
        self._progress.console.print(escape(line), highlight=False)

    def step(self, sequence: str, steps: int) -> None:
        done = self._progress.tasks[0].completed + steps
        rate = f"{done / max(1e-9, time.perf_counter() - self._started):.2g} maps/s"
        self._progress.update(self._task, advance=steps, description=escape(sequence), rate=rate)

    def sequence_done(self, sequence: str, record: SequenceRecord, sources: Sequence[str]) -> None:
        self._finished += 1
        self.note(done_line(self._finished, self._sequences, sequence, record, sources))


@contextmanager
def watching() -> Iterator[PlainWatcher | RichWatcher]:
    """A watcher that suits standard error."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield PlainWatcher()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=console) as progress:
        yield RichWatcher(progress)

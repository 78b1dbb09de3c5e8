"""How far a long command is: one display for every stage. A bar in a terminal, plain lines elsewhere, both on stderr.

Both say the same: done/total, rate, time left, and what the caller adds. The time left is total work over mean rate since
the start (rich's own estimate forgets everything older than half a minute, so a bar that moves every 30 s never gets one).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import IO, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from common.printable import printable

PLAIN_EVERY_S = 5.0
BAR_FROM_COLUMNS = 120
"""Of a terminal; a narrower one has better uses for twenty of them."""


def duration(seconds: float) -> str:
    """1:05, 2:03:04 or 3d 04:05:06: hours do not wrap at a day."""
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86_400)
    hours, minutes, seconds = rest // 3600, rest // 60 % 60, rest % 60
    if days:
        return f"{days}d {hours:02d}:{minutes:02d}:{seconds:02d}"
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def rate_text(per_s: float, unit: str) -> str:
    """14.2 videos/s; where one takes longer than two seconds, its time: 31 s each."""
    return f"{per_s:.3g} {unit}/s" if per_s >= 0.5 else f"{1 / per_s:.3g} s each" if per_s > 0 else f"0 {unit}/s"


class _StandardError:
    """What it does not take (a full disk, a terminal that is gone) is dropped: nothing fails because nobody can be told how far it is."""

    def __init__(self) -> None:
        # Below the bar of another display. None in a process that was started without one.
        self._stream: IO[str] | None = getattr(sys.stderr, "rich_proxied_file", sys.stderr)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if self._stream is not None:
            with suppress(OSError):
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            with suppress(OSError):
                self._stream.flush()


class ProgressDisplay:
    """Counts units of work; a context manager. unit: plural noun ("videos"). plain_every_s: least time between plain lines.

    `begin(total, done)` may be called once the amount is known; units done by an earlier run do not count into the rate.
    """

    def __init__(
        self, what: str, unit: str, *, console: Console | None = None, plain_every_s: float = PLAIN_EVERY_S
    ) -> None:
        self.what, self.unit = what, unit
        self.console = console or Console(file=cast(IO[str], _StandardError()))
        self.total: float | None = None
        self.done = 0.0
        self.status = ""
        self._first = 0.0
        self._plain_every_s = plain_every_s
        self._began = self._told = time.perf_counter()
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> ProgressDisplay:
        if self.console.is_terminal and not self.console.quiet:
            bar = (BarColumn(bar_width=20),) if self.console.width >= BAR_FROM_COLUMNS else ()
            line = TextColumn(
                "{task.fields[line]}", table_column=Column(overflow="fold")
            )  # what is behind the end is what matters
            columns = (TextColumn("{task.description}"), *bar, line)
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._task = self._bar.add_task(escape(self.what), total=None, line="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def begin(self, total: float | None, done: float = 0.0) -> None:
        """Say how much there is to do, of which `done` was done before."""
        self.total, self.done, self._first = total, done, done
        self._began = self._told = time.perf_counter()
        self._show()

    def advance(self, units: float = 1.0, *, status: str | None = None) -> None:
        """`units` more are done. status: what else is worth saying, such as the counts of rejects."""
        self.update(self.done + units, status=status)

    def update(self, done: float, *, status: str | None = None, at_once: bool = False) -> None:
        """`done` units are done in all. at_once: a plain line now, however long ago the last one was."""
        self.done = done
        if status is not None:
            self.status = status
        self._show()
        now = time.perf_counter()
        if self._bar is None and (at_once or now - self._told >= self._plain_every_s):
            self._told = now
            self.say(f"{self.what}: {self.line()}" if self.what else self.line())

    def say(self, text: str) -> None:
        """A line of its own, above the bar. Nothing in it is taken for markup or steers the terminal."""
        self.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def line(self) -> str:
        """For example "120/300 videos, 14.2 videos/s, 0:13 left, rejected 3 (corrupt 2, too_short 1)"."""
        parts = [
            f"{self.done:g}/{self.total:g} {self.unit}" if self.total is not None else f"{self.done:g} {self.unit}"
        ]
        per_s = (self.done - self._first) / max(time.perf_counter() - self._began, 1e-9)
        if self.done > self._first:
            parts.append(rate_text(per_s, self.unit))
            if self.total is not None:
                parts.append(f"{duration((self.total - self.done) / per_s)} left")
        return ", ".join([*parts, *filter(None, [self.status])])

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, total=self.total, line=escape(self.line()))


@contextmanager
def shown_in_megabytes(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A callback for (bytes so far, bytes in all or None) with a display of its own, which appears at the first call."""
    with ExitStack() as stack:
        display: ProgressDisplay | None = None

        def show(here: int, total: int | None) -> None:
            nonlocal display
            here_mb, total_mb = round(here / 1e6, 1), None if total is None else round(total / 1e6, 1)
            if display is None:
                display = stack.enter_context(ProgressDisplay(what, "MB"))
                display.begin(total_mb, here_mb)  # what an earlier run brought does not count into the rate
            display.total = total_mb
            display.update(here_mb)

        yield show

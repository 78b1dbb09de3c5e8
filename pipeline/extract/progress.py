"""One line about a running extraction: done/total, rate, ETA, rejects by reason. A bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from pipeline.extract.local import Event
from pipeline.extract.plan import Plan
from pipeline.extract.run import Tally
from pipeline.extract.stages import VideoReport
from shards import schema

PLAIN_EVERY_S = 5.0


def describe(tally: Tally) -> str:
    """For example "120/300 videos, 14.2/s, ETA 0:00:13, 2/5 chunks, rejected 3 (corrupt 2, too_short 1)"."""
    done = len(tally.videos)
    rate = done / max(tally.seconds, 1e-9)
    eta = time.strftime("%H:%M:%S", time.gmtime((tally.total - done) / rate)) if done else "?"
    text = f"{done}/{tally.total} videos, {rate:.1f}/s, ETA {eta}, {tally.chunks_done}/{tally.chunks} chunks"
    rejected = sum(tally.rejects.values())
    if rejected:
        reasons = ", ".join(f"{reason} {count}" for reason, count in tally.rejects.most_common())
        text += f", rejected {rejected} ({reasons})"
    return text


class ExtractionProgress:
    """Prints what happens; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("extract"), BarColumn(), TextColumn("{task.fields[line]}"), console=console, transient=True
        )
        self._task = self._bar.add_task("extract", total=None, line="")
        self._told = 0.0

    def __enter__(self) -> ExtractionProgress:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def planned(self, plan: Plan, tally: Tally) -> None:
        todo = f"{tally.chunks} chunks to do" if tally.chunks else "nothing left to do"
        self.console.print(
            f"{len(plan.videos)} videos in {plan.chunks} chunks, {plan.passes} passes: {todo}", highlight=False
        )
        self._bar.update(self._task, total=tally.total)

    def event(self, event: Event, tally: Tally) -> None:
        if isinstance(event, VideoReport) and event.status == schema.REJECTED:
            self.console.print(
                f"rejected {escape(event.video)}: {event.reason}: {escape(event.detail)}",
                highlight=False,
                soft_wrap=True,
            )
        line = describe(tally)
        self._bar.update(self._task, completed=len(tally.videos), line=line)
        if not self.console.is_terminal and time.perf_counter() - self._told > PLAIN_EVERY_S:
            self.console.print(line, highlight=False, soft_wrap=True)
            self._told = time.perf_counter()

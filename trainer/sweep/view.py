"""How a sweep goes, while it goes: a table of all rows in a terminal, plain lines elsewhere, both on standard error.

Everything shown is read from the runs' logs. The time left is what is left of steps at the pace of this session's runs;
a row that has not begun is taken to be as quick per step as the others are on average.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from common.progress import duration
from trainer.sweep.plan import Run, SweepPlan
from trainer.sweep.run_state import LogFollower
from trainer.sweep.sweep_file import Row

PLAIN_EVERY_S = 20.0


@dataclass
class RunProgress:
    """One run as the view sees it. first_step: where this session took it up; begun_s: when (monotonic)."""

    run: Run
    log: LogFollower
    status: str = "waiting"
    begun_s: float = 0.0
    took_s: float = 0.0
    first_step: int = 0
    error: str = ""

    @property
    def steps(self) -> int:
        return self.run.config.train.steps

    @property
    def step(self) -> int:
        return min(self.log.state.step, self.steps)

    @property
    def left(self) -> int:
        """Steps still to be done by this sweep: a failed run is not waited for."""
        return self.steps - self.step if self.status in ("waiting", "running") else 0

    def pace_s(self, now: float) -> float | None:
        """Seconds a step has taken in this session, start included; None before the first one is logged."""
        done = self.log.state.step - self.first_step
        spent = now - self.begun_s if self.status == "running" else self.took_s
        return spent / done if done > 0 and spent > 0 else None


@dataclass(frozen=True)
class RowLine:
    """What is shown of a row: of all its seeds together."""

    row: str
    status: str
    step: int
    steps: int
    loss: float | None
    samples_per_s: float | None
    left_s: float | None
    cells: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        loss = "" if self.loss is None else f"{self.loss:.4f}"
        rate = "" if self.samples_per_s is None else f"{self.samples_per_s:.1f}"
        left = "" if self.left_s is None else duration(self.left_s)
        steps = f"{self.step}/{self.steps}" if self.steps else ""
        object.__setattr__(self, "cells", (self.row, self.status, steps, loss, rate, left))


class SweepView:
    """A context manager; `begun`, `ended` and `look` are called by `run_sweep`."""

    def __init__(self, plan: SweepPlan, places: int, console: Console | None = None) -> None:
        self.plan, self.places = plan, max(1, places)
        self.console = console or Console(stderr=True, highlight=False)
        self.progress = {run.name: RunProgress(run, LogFollower(run.directory)) for run in plan.runs}
        for one in self.progress.values():
            one.log.look()
            one.status = "finished" if one.run.finished else "waiting"
        self._live: Live | None = None
        self._told = time.monotonic()

    def __enter__(self) -> SweepView:
        if self.console.is_terminal:
            self._live = Live(self.table(), console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        for row, why in self.plan.left_out.items():
            self.say(f"{row}: left out, it {why}")
        for run in self.plan.outside:
            if not run.finished:
                self.say(f"{run.name}: {run.row.trained_by} trains it with --config {run.settings_file}")
        there = [name for name, one in self.progress.items() if one.status == "finished"]
        if there:
            self.say(f"{len(there)} of {len(self.progress)} runs are trained already")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def begun(self, run: Run) -> None:
        one = self.progress[run.name]
        # What a killed run logged after its last checkpoint will be done again; its start line says from where.
        one.status, one.begun_s, one.first_step = "running", time.monotonic(), one.log.state.step
        self.say(f"{run.name}: begun" if not one.first_step else f"{run.name}: continued after step {one.first_step}")

    def ended(self, run: Run, error: str) -> None:
        one = self.progress[run.name]
        state = one.log.look()
        one.took_s, one.error = time.monotonic() - one.begun_s, error
        one.status = ("interrupted" if error == "interrupted" else "failed") if error else "finished"
        loss = f", loss {state.loss:.4f}" if state.loss is not None and not error else ""
        reason = f": {error}" if one.status == "failed" else ""
        self.say(f"{run.name}: {one.status} after step {state.step}{loss}, {duration(one.took_s)}{reason}")

    def look(self, running: list[Run]) -> None:
        """Read the logs of running runs and show what is new."""
        for run in running:
            one = self.progress[run.name]
            one.first_step = min(one.first_step, one.log.look().step)
        if self._live is not None:
            self._live.update(self.table(), refresh=True)
        elif time.monotonic() - self._told >= PLAIN_EVERY_S:
            self._told = time.monotonic()
            for line in self.rows():
                if line.status.startswith("running"):
                    row, status, steps, loss, rate, left = line.cells
                    parts = (
                        f"loss {loss}" if loss else "",
                        f"{rate} samples/s" if rate else "",
                        f"{left} left" if left else "",
                    )
                    self.say(f"{row}: {status}, step {steps}" + "".join(f", {part}" for part in parts if part))
            self.say(self.total())

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def table(self) -> Table:
        table = Table(caption=escape(self.total()), caption_justify="left", title=escape(self.plan.file.name))
        for heading in ("row", "state"):
            table.add_column(heading, overflow="fold")
        for heading in ("step", "loss", "samples/s", "left"):
            table.add_column(heading, justify="right")
        for line in self.rows():
            table.add_row(*map(escape, line.cells))
        return table

    def rows(self) -> list[RowLine]:
        return [self._line(row) for row in self.plan.file.rows]

    def total(self) -> str:
        """For example "5 of 12 runs trained, 1 failed, 3:20 left"."""
        states = [one.status for one in self.progress.values()]
        parts = [f"{states.count('finished')} of {len(states)} runs trained"]
        parts += [f"{states.count(kind)} {kind}" for kind in ("running", "failed", "interrupted") if kind in states]
        left_s = self._left_s(list(self.progress.values()))
        return ", ".join([*parts, f"{duration(left_s)} left"] if left_s else parts)

    def _line(self, row: Row) -> RowLine:
        if row.trained_by:
            done = [run.finished for run in self.plan.runs_of(row)]
            counted = f" ({sum(done)} of {len(done)} seeds trained)"
            return RowLine(row.name, f"left to {row.trained_by}{counted}", 0, 0, None, None, None)
        mine = [self.progress[run.name] for run in self.plan.runs_of(row)]
        if not mine:
            status = "left out" if row.name in self.plan.left_out else f"{row.source} of the baseline"
            return RowLine(row.name, status, 0, 0, None, None, None)
        running = [one for one in mine if one.status == "running"]
        shown = running or [one for one in mine if one.log.state.loss is not None]
        rates = [one.log.state.samples_per_s for one in running if one.log.state.samples_per_s]
        return RowLine(
            row.name,
            _together(mine),
            sum(one.step for one in mine),
            sum(one.steps for one in mine),
            shown[-1].log.state.loss if shown else None,
            sum(rates) if rates else None,
            self._left_s(mine),
        )

    def _left_s(self, some: list[RunProgress]) -> float | None:
        """Time until these are done if the slots were theirs; None while nothing is known."""
        now = time.monotonic()
        paces = {one.run.name: one.pace_s(now) for one in self.progress.values()}
        known = [pace for pace in paces.values() if pace is not None]
        todo = [one for one in some if one.left]
        if not known or not todo:
            return None
        mean = sum(known) / len(known)
        each = [one.left * (paces[one.run.name] or mean) for one in todo]
        return max(max(each), sum(each) / self.places)


def _together(mine: list[RunProgress]) -> str:
    """One word for a row's seeds, and which ones where it matters."""
    for status in ("running", "failed", "interrupted"):
        seeds = [str(one.run.seed) for one in mine if one.status == status]
        if seeds:
            return f"{status} (seed {', '.join(seeds)})" if len(mine) > 1 else status
    if all(one.status == "finished" for one in mine):
        return "trained"
    done = sum(one.status == "finished" for one in mine)
    return f"waiting ({done} of {len(mine)} seeds trained)" if done else "waiting"

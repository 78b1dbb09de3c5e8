"""Parts of a large measurement as child processes: each within its own budget, all before one deadline, whatever any of them does.

A `Part` is a command. Parts of one group run side by side (checks, which are not timed); all others run alone. A part gets what its
budget, the deadline and the time kept for later parts (`reserve_s`) leave; one that needs another part which did not end well is not run.
Overrun parts are asked to end, then killed with all that they started. What a part records goes to a file of its own (`BENCH_RESULTS`,
see `bench/record.py`), so that the rows of a part that was stopped halfway count as well. Out comes one `Outcome` per part.

Only the standard library: this runs before the packages that the parts need are there.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from common.children import last_line
from common.parent_death import signal_with_parent

LEAST_S = 3.0
"""A part that could have less than this is not begun."""

GRACE_S = 5.0
"""Between asking an overrun part to end and killing it."""

SECONDS = "{seconds}"
"""In a command: how long the part may take, in whole seconds."""

Status = Literal["ok", "failed", "out of time", "not run"]


@dataclass(frozen=True)
class Part:
    """command: `SECONDS` in it is replaced. reserve_s: kept for it from the parts before. group: runs beside its neighbours in it."""

    name: str
    command: tuple[str, ...]
    budget_s: float
    needs: tuple[str, ...] = ()
    reserve_s: float = 0.0
    group: str | None = None


@dataclass(frozen=True)
class Row:
    """One recorded figure, as in bench/results.csv."""

    bench: str
    figure: str
    value: float
    unit: str
    note: str
    machine: str


@dataclass(frozen=True)
class Outcome:
    """How a part ended, after how many seconds of at most `limit_s`, and what it had recorded by then. reason: empty if ok."""

    part: str
    status: Status
    reason: str
    seconds: float
    limit_s: float
    rows: tuple[Row, ...]


def run_parts(
    parts: Sequence[Part],
    *,
    deadline_s: float,
    scratch: Path,
    log: Path,
    environment: Mapping[str, str],
    ended: Callable[[Outcome], None],
) -> list[Outcome]:
    """Run everything in order; all is over `deadline_s` from now, plus a second for what was killed. ended: told of every outcome."""
    until = time.monotonic() + deadline_s - GRACE_S
    outcomes: dict[str, Outcome] = {}
    for number, side_by_side in _groups(parts):
        later = sum(part.reserve_s for part in parts[number + len(side_by_side) :])
        running: list[_Running] = []
        try:
            for part in side_by_side:
                limit = min(part.budget_s, until - time.monotonic() - later)
                refusal = _refusal(part, limit, outcomes)
                if refusal:
                    outcomes[part.name] = Outcome(part.name, "not run", refusal, 0.0, max(0.0, limit), ())
                    ended(outcomes[part.name])
                    continue
                running.append(_Running(part, limit, scratch, environment))
            while running:
                for child in [child for child in running if child.over()]:
                    running.remove(child)
                    outcomes[child.part.name] = child.outcome(log)
                    ended(outcomes[child.part.name])
                time.sleep(0.05)
        finally:  # an interrupt leaves nothing behind
            for child in running:
                child.kill()
    return [outcomes[part.name] for part in parts]


def _groups(parts: Sequence[Part]) -> Iterator[tuple[int, list[Part]]]:
    """(index of the first, parts that run side by side)."""
    number = 0
    for _, members in groupby(parts, key=lambda part: part.group or part.name):
        found = list(members)
        yield number, found
        number += len(found)


def _refusal(part: Part, limit_s: float, outcomes: Mapping[str, Outcome]) -> str:
    """Why it is not begun; empty if it is."""
    lacking = [name for name in part.needs if outcomes[name].status != "ok"]
    if lacking:
        return f"needs {', '.join(lacking)}, which did not end well"
    if limit_s < LEAST_S:
        return "no time is left"
    return ""


class _Running:
    """One part at work."""

    def __init__(self, part: Part, limit_s: float, scratch: Path, environment: Mapping[str, str]) -> None:
        self.part, self.limit_s = part, limit_s
        home = scratch / "parts" / part.name
        home.mkdir(parents=True)
        self._said, self._rows = home / "said", home / "rows.csv"
        command = [word.replace(SECONDS, str(int(limit_s))) for word in part.command]
        self._began, self._asked = time.monotonic(), 0.0
        self._seconds = 0.0
        with open(self._said, "wb") as said:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**environment, "BENCH_RESULTS": str(self._rows), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
                preexec_fn=signal_with_parent(signal.SIGTERM, os.getpid()),
            )

    def over(self) -> bool:
        """Whether it has ended. One that has run too long is asked to end at its limit and killed GRACE_S later."""
        spent = time.monotonic() - self._began
        if self._process.poll() is not None:
            self._seconds = spent
            self._kill_group()  # what it may have left behind
            return True
        if spent > self.limit_s and not self._asked:
            self._asked = spent
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
        if self._asked and spent > self._asked + GRACE_S:
            self.kill()
        return False

    def kill(self) -> None:
        self._kill_group()
        self._process.wait()

    def outcome(self, log: Path) -> Outcome:
        """After its end: the rows it has recorded, and why it failed if it did. Its output is appended to the log."""
        with open(log, "a") as stream:
            stream.write(f"==== {self.part.name}\n{self._said.read_text(errors='replace')}\n")
        status: Status = "ok"
        reason = ""
        if self._asked:
            status, reason = "out of time", f"stopped after {self.limit_s:.0f} s"
        elif self._process.returncode < 0:
            status, reason = "failed", f"killed by {signal.Signals(-self._process.returncode).name}"
        elif self._process.returncode:
            said = last_line(self._said).removeprefix("Error: ")
            status, reason = "failed", said[:200] or f"exit status {self._process.returncode} without a word"
        return Outcome(self.part.name, status, reason, self._seconds, self.limit_s, read_rows(self._rows))

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def read_rows(path: Path) -> tuple[Row, ...]:
    """The figures of a file that `record` has written; none where there is no such file. A line that was cut off is left out."""
    if not path.is_file():
        return ()
    rows = []
    with open(path, newline="") as stream:
        for line in csv.DictReader(stream):
            if line["note"] is not None:
                rows.append(
                    Row(
                        line["bench"], line["figure"], float(line["value"]), line["unit"], line["note"], line["machine"]
                    )
                )
    return tuple(rows)

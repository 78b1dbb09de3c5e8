"""A plan in, trained runs out: children start as slots come free, their logs are followed, failures are named and passed by.

Nothing here trains or computes: every run is `python -m trainer train` in a process of its own, which cannot reach a flow
network. Runs that another program trains get their settings file and are otherwise left to it. An interrupt asks the children once
to save and end; the same command later goes on where each of them was.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from common.children import Children, Ended, Task, slots, threads_each
from common.command import INTERRUPTED
from common.lock import directory_lock
from shards.files import write_atomic
from trainer.config import load_config, to_toml
from trainer.interrupts import Interrupts
from trainer.sweep.plan import Run, SweepPlan
from trainer.sweep.record import RECORD, read_record, record_of, write_record

LOOK_EVERY_S = 0.5


class Watcher(Protocol):
    """Whoever shows how it goes."""

    def begun(self, run: Run) -> None: ...

    def ended(self, run: Run, error: str) -> None: ...

    def look(self, running: list[Run]) -> None: ...


@dataclass(frozen=True)
class SweepOutcome:
    """failed: name of a run → its last line. interrupted: an end was asked for before all had been trained."""

    trained: int
    skipped: int
    failed: dict[str, str]
    interrupted: bool


def train_command(run: Run, resume: bool) -> tuple[str, ...]:
    """The command line of one run; its settings are in its settings file."""
    command = (
        sys.executable,
        "-m",
        "trainer",
        "train",
        "--config",
        str(run.settings_file),
        "--out",
        str(run.directory),
    )
    return (*command, "--resume") if resume else command


def run_sweep(
    plan: SweepPlan,
    watcher: Watcher,
    *,
    jobs: int = 0,
    command: Callable[[Run, bool], tuple[str, ...]] = train_command,
) -> SweepOutcome:
    """Train what is not trained yet, `jobs` at a time (0: one per visible GPU, or one on a CPU)."""
    todo = deque(run for run in plan.runs if not run.finished)
    total, failed, by_name = len(todo), dict[str, str](), {run.name: run for run in plan.runs}
    left: set[str] = set()
    use_gpus = any(run.config.train.device != "cpu" for run in todo)
    with directory_lock(plan.out, "a sweep") as lock, Interrupts() as interrupts:
        _claim(plan)
        places = slots(jobs, use_gpus=use_gpus)
        threads = threads_each(places)
        for run in plan.outside:
            _write_settings(run, threads)
        with Children(places, held=lock) as children:
            asked = False
            while children.running or (todo and not interrupts.asked):
                while todo and children.free and not interrupts.asked:
                    run = todo.popleft()
                    children.start(_task(run, threads, command))
                    watcher.begun(run)
                if interrupts.asked and not asked:
                    asked = True
                    children.ask_to_end()
                for end in children.ended():
                    run = by_name[end.task.name]
                    error = _error(run, end)
                    if error and interrupts.asked and (end.status == INTERRUPTED or end.status < 0):
                        left.add(run.name)
                        error = "interrupted"
                    elif error:
                        failed[run.name] = error
                    watcher.ended(run, error)
                    write_record(plan.out, record_of(plan, failed, frozenset(left)))
                watcher.look([by_name[task.name] for task in children.running])
                time.sleep(LOOK_EVERY_S)
    trained = total - len(todo) - len(failed) - len(left)
    return SweepOutcome(trained, len(plan.runs) - total, failed, bool(todo or left))


def _claim(plan: SweepPlan) -> None:
    """Write the record; a directory of another sweep is refused."""
    if (plan.out / RECORD).is_file():
        before = read_record(plan.out)
        if before.name != plan.file.name:
            raise ValueError(
                f"{plan.out} holds the sweep {before.name!r}, not {plan.file.name!r}: choose another --out"
            )
    write_record(plan.out, record_of(plan, {}))


def _task(run: Run, threads: int, command: Callable[[Run, bool], tuple[str, ...]]) -> Task:
    """Write the run's settings file and say how it is started; a run that has begun is continued."""
    resume = _write_settings(run, threads)
    beside = run.directory
    return Task(run.name, command(run, resume), beside.with_suffix(".err"), beside.with_suffix(".out"))


def _write_settings(run: Run, threads: int) -> bool:
    """Write what the run is to be started with; whether it has begun before."""
    held = run.directory / "config.toml"
    resume = held.is_file()
    config = run.config
    # Threads change the order of sums, so a continued run keeps those it was started with.
    chosen = load_config(held).train.threads if resume else min(config.train.threads or threads, threads or sys.maxsize)
    config = replace(config, train=replace(config.train, threads=chosen))
    write_atomic(run.settings_file, to_toml(config))
    return resume


def _error(run: Run, end: Ended) -> str:
    """Why a child did not finish its run; empty where it did."""
    if end.status == 0 and not run.finished:
        return "it ended without finishing the run"
    return end.reason

"""The sweep's loop over children that only pretend to train: order, failures, what is skipped, what is continued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from common.command import PlainError
from tests.trainer.sweep.small_sweep import HEAD, ROWS, log_lines, pretend, write_sweep
from tests.trainer.training_set import write_training_set
from trainer.config import load_config
from trainer.sweep import run_sweep as running
from trainer.sweep.plan import Run, SweepPlan, plan_sweep
from trainer.sweep.record import read_record
from trainer.sweep.run_sweep import SweepOutcome, run_sweep
from trainer.sweep.sweep_file import read_sweep_file
from trainer.sweep.view import SweepView

Command = Callable[[Run, bool], tuple[str, ...]]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_set(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LOOK_EVERY_S", 0.02)


class Listener:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.errors: dict[str, str] = {}
        self.most = 0

    def begun(self, run: Run) -> None:
        self.order.append(run.name)
        self.most = max(self.most, len(self.order) - len(self.errors))

    def ended(self, run: Run, error: str) -> None:
        self.errors[run.name] = error

    def look(self, running: list[Run]) -> None:
        pass


def planned(tmp_path: Path, shards: Path, text: str = HEAD + ROWS) -> SweepPlan:
    return plan_sweep(read_sweep_file(write_sweep(tmp_path / "some.toml", text)), tmp_path / "out", [str(shards)], {})


def sweep(plan: SweepPlan, command: Command, jobs: int = 1) -> tuple[SweepOutcome, Listener]:
    listener = Listener()
    return run_sweep(plan, listener, jobs=jobs, command=command), listener


def succeed(run: Run, resume: bool) -> tuple[str, ...]:
    return pretend(run)


def fail_one(run: Run, resume: bool) -> tuple[str, ...]:
    return pretend(run, 1 if run.name == "full, seed 1" else 0)


def test_all_rows_are_trained_once(tmp_path: Path, shards: Path) -> None:
    plan = planned(tmp_path, shards)
    outcome, first = sweep(plan, succeed)
    assert outcome == SweepOutcome(4, 0, {}, False)
    assert first.order == [run.name for run in plan.runs] and first.most == 1
    again, second = sweep(planned(tmp_path, shards), succeed)
    assert again == SweepOutcome(0, 4, {}, False) and second.order == []
    record = read_record(tmp_path / "out")
    assert {run.status for row in record.rows if row.trained and not row.left_out for run in row.runs} == {"finished"}


def test_a_failing_run_is_named_and_the_others_go_on(tmp_path: Path, shards: Path) -> None:
    outcome, listener = sweep(planned(tmp_path, shards), fail_one)
    assert outcome == SweepOutcome(3, 0, {"full, seed 1": "the disk is <full>"}, False)
    assert len(listener.order) == 4
    failed = read_record(tmp_path / "out").rows[0].runs[1]
    assert (failed.status, failed.error) == ("failed", "the disk is <full>")
    # the next time only that one is tried again, as a continuation
    resumed: dict[str, bool] = {}

    def watch(run: Run, resume: bool) -> tuple[str, ...]:
        resumed[run.name] = resume
        return pretend(run)

    assert sweep(planned(tmp_path, shards), watch)[0] == SweepOutcome(1, 3, {}, False)
    assert resumed == {"full, seed 1": True}


def test_a_child_that_only_says_it_is_done_has_failed(tmp_path: Path, shards: Path) -> None:
    outcome, _ = sweep(planned(tmp_path, shards), lambda run, resume: (sys.executable, "-c", "pass"))
    assert set(outcome.failed.values()) == {"it ended without finishing the run"} and len(outcome.failed) == 4


OUTSIDE = '[[rows]]\nname = "fresh"\ntrained_by = "bench/other.py"\nsettings = { "loss.sigma" = 0.2 }\n'


def test_a_row_that_another_program_trains_gets_its_settings_and_is_left_alone(tmp_path: Path, shards: Path) -> None:
    plan = planned(tmp_path, shards, HEAD + ROWS + OUTSIDE)
    outcome, listener = sweep(plan, succeed)
    assert outcome == SweepOutcome(4, 0, {}, False) and not [name for name in listener.order if "fresh" in name]
    assert [load_config(run.settings_file).loss.sigma for run in plan.outside] == [0.2, 0.2]
    view = SweepView(plan, 1, Console(file=open(os.devnull, "w")))
    assert view.rows()[-1].status == "left to bench/other.py (0 of 2 seeds trained)"
    for run in plan.outside:
        subprocess.run(pretend(run), check=True)
    sweep(planned(tmp_path, shards, HEAD + ROWS + OUTSIDE), succeed)
    row = read_record(tmp_path / "out").rows[-1]
    assert [run.status for run in row.runs] == ["finished", "finished"] and row.trained_by == "bench/other.py"


def test_jobs_run_beside_each_other_with_their_share_of_threads(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    plan = planned(tmp_path, shards, HEAD.replace("threads = 1", "threads = 0") + ROWS)
    _, listener = sweep(plan, succeed, jobs=3)
    assert listener.most == 3
    assert {load_config(run.settings_file).train.threads for run in plan.runs} == {2}


def test_a_continued_run_keeps_its_threads(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = HEAD.replace("threads = 1", "threads = 0") + ROWS
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    sweep(planned(tmp_path, shards, text), fail_one, jobs=3)
    plan = planned(tmp_path, shards, text)
    sweep(plan, succeed, jobs=1)
    assert load_config(plan.runs[1].settings_file).train.threads == 2


def test_an_interrupt_asks_children_to_end_and_starts_no_more(tmp_path: Path, shards: Path) -> None:
    waits = """
import signal, sys, time
def end(*_): sys.exit(130)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(60)
"""

    class Interrupting(Listener):
        sent = False

        def look(self, running: list[Run]) -> None:
            if not self.sent and running[0].directory.with_suffix(".out").read_text():
                self.sent = True
                os.kill(os.getpid(), signal.SIGINT)

    plan = planned(tmp_path, shards)
    listener = Interrupting()
    outcome = run_sweep(plan, listener, command=lambda run, resume: (sys.executable, "-c", waits))
    assert outcome == SweepOutcome(0, 0, {}, True)
    assert listener.errors == {"full, seed 0": "interrupted"}
    assert [run.status for run in read_record(tmp_path / "out").rows[0].runs] == ["interrupted", "waiting"]


def test_more_steps_continue_finished_runs(tmp_path: Path, shards: Path) -> None:
    sweep(planned(tmp_path, shards), succeed)
    longer = planned(tmp_path, shards, HEAD.replace("steps = 6", "steps = 8") + ROWS)
    assert sweep(longer, succeed)[0].trained == 4
    with pytest.raises(ValueError, match=r"train\.steps: 6, but 8 are done"):
        planned(tmp_path, shards)


def test_two_sweeps_do_not_share_a_directory(tmp_path: Path, shards: Path) -> None:
    plan = planned(tmp_path, shards)

    class Second(Listener):
        def begun(self, run: Run) -> None:
            with pytest.raises(PlainError, match="a sweep is already at work"):
                sweep(plan, succeed)

    run_sweep(plan, Second(), command=succeed)
    other = plan_sweep(read_sweep_file(write_sweep(tmp_path / "other.toml")), tmp_path / "out", [str(shards)], {})
    with pytest.raises(ValueError, match="holds the sweep 'some', not 'other'"):
        sweep(other, succeed)


def test_plain_lines_tell_what_happens(tmp_path: Path, shards: Path) -> None:
    with open(tmp_path / "seen", "w+") as file:
        plan = planned(tmp_path, shards)
        with SweepView(plan, 1, Console(file=file, width=200)) as view:
            run_sweep(plan, view, command=fail_one)
        seen = (tmp_path / "seen").read_text()
    assert "raft: left out, it needs the shard set RAFT" in seen
    assert "full, seed 0: begun\n" in seen and "full, seed 0: finished after step 6, loss 0.1667" in seen
    assert "full, seed 1: failed after step 6" in seen and ": the disk is <full>\n" in seen


def test_the_table_shows_every_row_and_the_time_left(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of six steps of the first run took 4 s; its other four and the 18 of three more runs are left, one at a time."""
    clock = [100.0]
    monkeypatch.setattr("trainer.sweep.view.time.monotonic", lambda: clock[0])
    plan = planned(tmp_path, shards)
    with open(tmp_path / "seen", "w") as file:
        view = SweepView(plan, 1, Console(file=file, width=120, force_terminal=True))
        run = plan.runs[0]
        view.begun(run)
        run.directory.mkdir(parents=True)
        log = '{"event": "start", "step": 0}\n{"event": "step", "step": 2, "loss": 0.5, "samples_per_s": 2.0}\n{"event": "st'
        (run.directory / "log.jsonl").write_text(log)
        clock[0] = 104.0
        view.look([run])
        cells = {line.row: line.cells for line in view.rows()}
        assert cells["full"] == ("full", "running (seed 0)", "2/12", "0.5000", "2.0", "0:20")
        assert cells["no gradient"] == ("no gradient", "waiting", "0/12", "", "", "0:24")
        assert cells["random"][1:3] == ("random_decoder of the baseline", "") and cells["raft"][1] == "left out"
        assert view.total() == "0 of 4 runs trained, 1 running, 0:44 left"
        view.console.print(view.table())
    assert "no gradient" in (tmp_path / "seen").read_text()


def test_a_log_that_went_back_shows_where_it_is_now(tmp_path: Path, shards: Path) -> None:
    """After a kill the run starts again from its checkpoint, behind what it had logged."""
    plan = planned(tmp_path, shards)
    run = plan.runs[0]
    run.directory.mkdir(parents=True)
    with open(run.directory / "log.jsonl", "w") as log:
        log.write('{"event": "start", "step": 0}\n{"event": "step", "step": 5, "loss": 0.5}\n')
        log.flush()
        view = SweepView(plan, 1, Console(file=open(os.devnull, "w")))
        view.begun(run)
        log.write('{"event": "start", "step": 4}\n')
        log.flush()
        view.look([run])
    assert view.progress[run.name].first_step == 4 and log_lines(run.directory, "start")[1]["step"] == 4

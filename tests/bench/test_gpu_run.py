"""Parts of a large measurement: budgets, deadline, failures and what is left behind, with shell commands for parts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import gpu_run
from bench.gpu_run import SECONDS, Outcome, Part, run_parts

HEADER = "date,commit,machine,command,bench,figure,value,unit,note"
ROW = 'echo "2026-01-01,abc,GPU,python x,b,{figure},{value},1/s,some note" >> "$BENCH_RESULTS"'
Run = Callable[..., dict[str, Outcome]]


def rows(**figures: float) -> str:
    """A shell command that records them as `record` does."""
    lines = [ROW.format(figure=figure, value=value) for figure, value in figures.items()]
    return "; ".join([f'echo {HEADER} > "$BENCH_RESULTS"', *lines])


def shell(name: str, script: str, budget_s: float = 60, needs: tuple[str, ...] = (), **more: object) -> Part:
    return Part(name, ("sh", "-c", script), budget_s, needs, **more)  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(gpu_run, "LEAST_S", 0.1)
    monkeypatch.setattr(gpu_run, "GRACE_S", 0.5)

    def of(*parts: Part, deadline_s: float = 120) -> dict[str, Outcome]:
        told: list[Outcome] = []
        outcomes = run_parts(
            parts,
            deadline_s=deadline_s,
            scratch=tmp_path,
            log=tmp_path / "log.txt",
            environment={**os.environ},
            ended=told.append,
        )
        assert [outcome.part for outcome in outcomes] == [part.name for part in parts]
        assert sorted(told, key=lambda o: o.part) == sorted(outcomes, key=lambda o: o.part)
        return {outcome.part: outcome for outcome in outcomes}

    return of


def alive(pid: int) -> bool:
    """Whether a process works; one that nobody has waited for yet does not."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_failure_is_told_and_the_rest_go_on(run: Run, tmp_path: Path) -> None:
    ended = run(
        shell("good", rows(speed=12.5, size=3)),
        shell("bad", f"{rows(half=1)}; echo 'Error: no such network' >&2; exit 3"),
        shell("silent", "exit 4"),
        shell("shot", "kill -9 $$"),
        shell("after", "exit 0", needs=("bad",)),
        shell("last", "exit 0", needs=("good",)),
    )
    good = ended["good"]
    assert (good.status, good.reason) == ("ok", "")
    assert [(row.figure, row.value, row.unit, row.machine) for row in good.rows] == [
        ("speed", 12.5, "1/s", "GPU"),
        ("size", 3.0, "1/s", "GPU"),
    ]
    assert (ended["bad"].status, ended["bad"].reason) == ("failed", "no such network")
    assert [row.figure for row in ended["bad"].rows] == ["half"], "what it had recorded counts"
    assert ended["silent"].reason == "exit status 4 without a word" and ended["shot"].reason == "killed by SIGKILL"
    assert (ended["after"].status, ended["after"].reason) == ("not run", "needs bad, which did not end well")
    assert ended["last"].status == "ok"
    assert "==== bad\nError: no such network\n" in (tmp_path / "log.txt").read_text()


def test_a_part_that_takes_too_long_ends_with_all_that_it_started(run: Run, tmp_path: Path) -> None:
    child = tmp_path / "pid"
    script = f"{rows(early=1)}; trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & echo $! > {child}; wait"
    ended = run(shell("slow", script, 1.0), shell("next", "exit 0"))
    assert (ended["slow"].status, ended["slow"].reason) == ("out of time", "stopped after 1 s")
    assert [row.figure for row in ended["slow"].rows] == ["early"] and ended["next"].status == "ok"
    assert not alive(int(child.read_text()))


def test_what_a_part_leaves_behind_is_ended(run: Run, tmp_path: Path) -> None:
    child = tmp_path / "pid"
    ended = run(shell("quick", f"sleep 300 & echo $! > {child}"))
    assert ended["quick"].status == "ok" and not alive(int(child.read_text()))


def test_time_is_kept_for_what_comes_later(run: Run, tmp_path: Path) -> None:
    said = tmp_path / "seconds"
    ended = run(
        shell("greedy", "sleep 300", 100),
        shell("hopeless", "exit 0"),
        shell("long", f"echo {SECONDS} > {said}", 30, reserve_s=20),
        deadline_s=21.5,  # half a second is the grace, 20 s are kept
    )
    assert ended["greedy"].status == "out of time" and ended["greedy"].limit_s <= 1.0
    assert (ended["hopeless"].status, ended["hopeless"].reason) == ("not run", "no time is left")
    assert ended["long"].status == "ok" and 10 < ended["long"].limit_s <= 20.5
    assert int(said.read_text()) == int(ended["long"].limit_s)


def test_a_group_runs_side_by_side(run: Run, tmp_path: Path) -> None:
    def meeting(name: str, other: str) -> Part:
        script = f"touch {tmp_path}/{name}; until [ -e {tmp_path}/{other} ]; do sleep 0.05; done"
        return shell(name, script, 30, group="checks")

    ended = run(meeting("one", "two"), meeting("two", "one"), shell("alone", f"[ -e {tmp_path}/one ]"))
    assert {outcome.status for outcome in ended.values()} == {"ok"}


def test_an_interrupt_leaves_no_part_behind(tmp_path: Path) -> None:
    child = tmp_path / "pid"

    def interrupted(outcome: Outcome) -> None:
        raise KeyboardInterrupt

    quick = shell("quick", f"until [ -s {child} ]; do sleep 0.05; done", group="checks")
    slow = shell("slow", f"echo $$ > {child}; exec sleep 300", group="checks")
    with pytest.raises(KeyboardInterrupt):
        run_parts(
            [slow, quick],
            deadline_s=120,
            scratch=tmp_path,
            log=tmp_path / "log.txt",
            environment={**os.environ},
            ended=interrupted,
        )
    assert not alive(int(child.read_text()))


def test_a_line_that_was_cut_off_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    assert gpu_run.read_rows(path) == ()
    path.write_text(f"{HEADER}\n2026-01-01,abc,GPU,python x,b,whole,1,s,\n2026-01-01,abc,GPU,python x,b,cu")
    assert [row.figure for row in gpu_run.read_rows(path)] == ["whole"]

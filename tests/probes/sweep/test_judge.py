"""Judging: one probe per finished run, none twice, failures passed by; once with the real probe in its own process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from common.children import Slot
from common.progress import ProgressDisplay
from probes.cli import main
from probes.sources.table import source_names
from probes.sweep import judge as judging
from probes.sweep.judge import Data, Job, figures_of, jobs_of, judge, probe_command
from probes.sweep.probe import SweepProbe
from tests.probes.sweep.small_record import probe_of, row, write_record
from trainer import SweepRecord
from trainer.sweep.sweep_file import OTHER_SOURCES, TRAINED

FIGURES = {"J": 50.0, "F": 40.0, "JF": 45.0, "unmeasured": None}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "LOOK_EVERY_S", 0.02)


class Probe:
    """Stands in for the probe's process: answers as it does, fails for one row, and remembers who was asked."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.asked: list[Job] = []

    def __call__(self, probe: SweepProbe, job: Job, data: Data, threads: int) -> tuple[str, ...]:
        self.asked.append(job)
        answer = json.dumps({"probe": "vos", "means": {job.source: FIGURES}, "report": "index.html"})
        code = "import sys; sys.exit('Error: no such data')" if job.row == self.fails else f"print({answer!r})"
        return (sys.executable, "-c", code)


def run(record: SweepRecord, out: Path, probe: Probe, davis: Path | None = None) -> dict[str, str]:
    progress = ProgressDisplay("judging", "runs", console=Console(file=open(os.devnull, "w")))
    data = Data({"--davis": davis or out})
    return judge(record, probe_of(record), out, data, [Slot(), Slot()], progress, command=probe)


def rows_with_a_random_decoder(out: Path) -> SweepRecord:
    random = row("random", source="random_decoder", trained=False, status="waiting")
    return write_record(out, row("full"), random, row("late", status="waiting"))


def test_a_row_without_training_stands_on_the_baselines_models(tmp_path: Path) -> None:
    jobs = jobs_of(rows_with_a_random_decoder(tmp_path), tmp_path)
    assert [(job.row, job.seed, job.source) for job in jobs] == [
        *(("full", seed, "flowfeat") for seed in (0, 1)),
        *(("random", seed, "random_decoder") for seed in (0, 1)),
    ]
    assert jobs[2].model == jobs[0].model and jobs[2].report != jobs[0].report


def test_the_sources_that_a_row_may_name_are_the_probes() -> None:
    assert {TRAINED, *OTHER_SOURCES} <= set(source_names())


def test_nothing_is_judged_twice(tmp_path: Path) -> None:
    record, first, second = rows_with_a_random_decoder(tmp_path), Probe(), Probe()
    assert run(record, tmp_path, first) == {} and len(first.asked) == 4
    assert figures_of(record, tmp_path)["random"][1] == {"J": 50.0, "F": 40.0, "JF": 45.0}
    assert run(record, tmp_path, second) == {} and second.asked == []


@pytest.mark.parametrize("change", ["model", "probe", "data", "stored"])
def test_what_changed_is_judged_again(tmp_path: Path, change: str) -> None:
    record, again = rows_with_a_random_decoder(tmp_path), Probe()
    run(record, tmp_path, Probe())
    davis = None
    if change == "model":
        jobs_of(record, tmp_path)[0].model.write_bytes(b"trained longer")
    elif change == "probe":
        record = write_record(tmp_path, row("full"), height=96)
    elif change == "data":
        davis = tmp_path / "rows"
    else:
        (jobs_of(record, tmp_path)[1].report / judging.FIGURES).write_text("{")
    run(record, tmp_path, again, davis)
    asked = [job.name for job in again.asked]
    both = ["full, seed 0", "full, seed 1"]
    expected = {
        "model": ["full, seed 0", "random, seed 0"],
        "probe": both,
        "data": [*both, "random, seed 0", "random, seed 1"],
        "stored": ["full, seed 1"],
    }
    assert asked == expected[change]


def test_a_failing_probe_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    record = rows_with_a_random_decoder(tmp_path)
    failed = run(record, tmp_path, Probe(fails="full"))
    assert failed == {"full, seed 0": "no such data", "full, seed 1": "no such data"}
    assert set(figures_of(record, tmp_path)["random"]) == {0, 1} and figures_of(record, tmp_path)["full"] == {}


def test_the_probes_command_line(tmp_path: Path) -> None:
    record = write_record(tmp_path, row("full"), height=96, sequences=["a", "b"], year=2016, standardise=True)
    job = jobs_of(record, tmp_path)[1]
    command = " ".join(probe_command(probe_of(record), job, Data({"--davis": Path("davis")}, "cpu"), 2))
    assert f"-m probes vos --model {job.model} --out {job.report} --sources flowfeat --seed 1 --device cpu" in command
    options = "--height 96 --iterations 5 --sequences a,b --year 2016 --standardise"
    assert command.endswith(f"--json --davis davis {options} --threads 2")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["sweep", *(str(each) for each in arguments)])


def test_from_record_to_table_with_the_real_probe(tmp_path: Path, davis: Path, checkpoint: Path) -> None:
    random = row("random", (0,), source="random_decoder", trained=False, status="waiting")
    write_record(tmp_path, row("full", (0,)), random, model=checkpoint, sequences=["boxes"])
    done = invoke("--sweep", tmp_path, "--davis", davis, "--jobs", 2, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "one seed" in done.output and "baseline" in done.output
    table = (tmp_path / "sweep.md").read_text()
    again = invoke("--sweep", tmp_path)
    assert again.exit_code == 0 and (tmp_path / "sweep.md").read_text() == table.replace(f", on {davis}", "")


def test_what_cannot_be_judged_is_one_line(tmp_path: Path, davis: Path) -> None:
    missing = invoke("--sweep", tmp_path)
    assert missing.exit_code == 1 and "holds no sweep" in missing.output
    write_record(tmp_path, row("full", status="waiting"))
    waiting = invoke("--sweep", tmp_path, "--davis", davis)
    assert waiting.exit_code == 1 and "none is trained yet" in waiting.output
    write_record(tmp_path, row("full"), task="voss")
    unknown = invoke("--sweep", tmp_path)
    assert unknown.exit_code == 1 and "'voss'; did you mean vos?" in unknown.output
    write_record(tmp_path, row("full"))
    assert "none" in invoke("--sweep", tmp_path, "--davis", tmp_path / "none").output
    (tmp_path / "sweep.json").write_text('{"format": 1}')
    older = invoke("--sweep", tmp_path)
    assert older.exit_code == 1 and "remove the file and run the sweep again" in older.output
    (tmp_path / "sweep.json").write_text('{"format": 2}')
    damaged = invoke("--sweep", tmp_path)
    assert damaged.exit_code == 1 and "is damaged" in damaged.output

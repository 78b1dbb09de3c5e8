"""Adding a probe is one file (`toy_task.py`) and one line: it gets a command, a store, tables, a page, and its part of `all`."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from probes.cli import commands
from probes.report import records
from probes.sources.features import Source
from probes.task import Context, Row, Settings, Task
from probes.tasks.vos import LinearVos
from tests.probes.toy_task import Picture, TokenSize

TWO_TASKS: tuple[type[Task], ...] = (LinearVos, TokenSize)  # a table and its new line


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(commands(TWO_TASKS), [str(argument) for argument in arguments])


def settings_of(out: Path, task: str) -> Settings:
    run = records.read(out).last_run(task)
    assert run is not None
    return run.settings


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, color in (("a.png", "red"), ("[x](http://evil).png", "white")):
        Image.new("RGB", (48, 48), color).save(folder / name.replace("/", ":"))
    return folder


def test_it_has_a_command_and_its_own_options(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    given = ("--model", checkpoint, "--out", tmp_path / "out", "--sources", "encoder,flowfeat")
    result = invoke("tokens", "--pictures", pictures, *given, "--gain", 2.0)
    assert result.exit_code == 0, result.output
    assert "level (au)" in result.stdout and "2/2 a.png: bytes" in result.stderr
    rows = list(csv.DictReader((tmp_path / "out/tokens.csv").open()))
    assert list(rows[0]) == ["source", "picture", "third", "level", "positive", "protocol"]
    assert len(rows) == 2 * (2 * 3 + 1)
    levels = [float(row["level"]) for row in rows if row["source"] == "encoder" and row["third"]]
    mean = next(float(row["level"]) for row in rows if row["source"] == "encoder" and row["picture"] == "mean")
    assert mean == pytest.approx(sum(levels) / len(levels), abs=1e-3)
    page = (tmp_path / "out/index.html").read_text()
    assert "Size of tokens" in page and "somebody" in page and "thumbnail: encoder + FlowFeat" in page
    assert "&lt;of&gt;" in page and "<of>" not in page
    assert "Video object segmentation" not in page, "only what has results is shown"
    assert "Usage" in invoke("tokens", "--model", checkpoint, "--out", tmp_path).output, "its data is required"


def test_it_resumes_and_starts_afresh_under_other_settings(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    given = ("--pictures", pictures, "--model", checkpoint, "--out", tmp_path / "out", "--sources", "encoder", "--json")
    first = invoke("tokens", *given)
    again = invoke("tokens", *given)
    assert "2 of 2 pictures are already measured" in again.stderr
    assert again.stdout == first.stdout
    means = json.loads(first.stdout)["means"]
    assert set(means["encoder"]) == {"level", "positive"}
    louder = invoke("tokens", *given, "--gain", 3.0)
    assert "gain 1.0 -> 3.0" in louder.stderr
    assert json.loads(louder.stdout)["means"]["encoder"]["level"] == pytest.approx(3 * means["encoder"]["level"])
    Image.new("RGB", (64, 64), "blue").save(pictures / "a.png")
    assert "1 of 2 pictures are already measured" in invoke("tokens", *given, "--gain", 3.0).stderr


def test_long_units_lose_one_source_when_stopped(
    checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TokenSize, "long_units", True)
    given = ("--pictures", pictures, "--model", checkpoint, "--out", tmp_path / "out", "--sources", "encoder,flowfeat")
    measured: list[list[str]] = []
    evaluate = Picture.evaluate

    def stopped(self: Picture, sources: Sequence[Source], context: Context) -> dict[str, list[Row]]:
        measured.append([source.name for source in sources])
        if len(measured) == 2:
            raise ValueError("pulled the plug")
        return evaluate(self, sources, context)

    monkeypatch.setattr(Picture, "evaluate", stopped)
    assert "pulled the plug" in invoke("tokens", *given).stderr
    assert measured == [["encoder"], ["flowfeat"]]
    assert invoke("tokens", *given).exit_code == 0
    assert measured[2:] == [["flowfeat"], ["encoder"], ["flowfeat"]], "what was measured is not measured again"


def test_all_runs_both_and_the_report_shows_both(checkpoint: Path, davis: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ("--model", checkpoint, "--out", out, "--sources", "encoder", "--iterations", 3)
    result = invoke("all", "--davis", davis, "--sequences", "boxes", "--pictures", pictures, *given, "--height", 64)
    assert result.exit_code == 0, result.output
    for name in ("vos", "tokens"):
        assert settings_of(out, name)["height"] == 64, "a shared flag goes to both"
        assert (out / f"{name}.csv").is_file()
    page = (out / "index.html").read_text()
    assert page.index('href="#vos"') < page.index('id="vos"') < page.index('id="tokens"')
    assert (out / "report.md").read_text().count("\n# ") == 2, (
        "a second task, under its own heading, and how it was made"
    )
    before = {name: (out / name).read_bytes() for name in ("index.html", "report.md", "vos.csv", "tokens.csv")}
    for name in before:
        (out / name).unlink()
    rebuilt = invoke("report", "--out", out)
    assert "vos 1 of 1 sequences, tokens 2 of 2 pictures" in rebuilt.stdout
    assert {name: (out / name).read_bytes() for name in before} == before
    neither = invoke("all", *given)
    assert neither.exit_code == 1
    assert "no probe has data: give --davis DIR or --pictures DIR" in neither.stderr


def test_each_task_keeps_its_own_defaults_in_all(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    given = ("--model", checkpoint, "--out", tmp_path / "out", "--sources", "encoder")
    assert invoke("all", "--pictures", pictures, *given).exit_code == 0
    assert settings_of(tmp_path / "out", "tokens")["height"] == 48


def test_rows_that_were_not_declared_are_a_defect(
    checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TokenSize, "metrics", TokenSize.metrics[:1])
    given = ("--model", checkpoint, "--out", tmp_path / "out", "--sources", "encoder")
    result = invoke("tokens", "--pictures", pictures, *given)
    assert isinstance(result.exception, AssertionError)
    assert "positive" in str(result.exception)

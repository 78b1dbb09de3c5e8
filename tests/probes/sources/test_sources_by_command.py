"""Sources of others from the command line: a hub entry, a module of one's own, a cache; and what each refusal says."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from probes.cli import commands
from probes.report import records
from probes.sources import hub_table
from probes.tasks.table import TASKS
from probes.tasks.vos_common import VosTask
from tests.probes.sources.hub_repository import upsampler, write_repository

OWN = """
import torch

def net():
    torch.manual_seed(0)
    return torch.nn.Conv2d(3, 4, 16, 16)
"""


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(commands(TASKS), [str(argument) for argument in arguments])


@pytest.fixture
def given(checkpoint: Path, davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    monkeypatch.setattr(hub_table, "HUB", (*hub_table.HUB, upsampler("features, image")))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(OWN)
    write_repository(tmp_path / "theirs")
    small = ("--sequences", "boxes", "--height", 64, "--iterations", 3)
    return ("vos", "--model", checkpoint, "--davis", davis, *small)


def test_a_table_of_everybodys(given: tuple[object, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    sources = ("--sources", "encoder,bilinear,flowfeat,flowfeat++,theirs", "--source", "mine:net")
    cache = ("--feature-cache", tmp_path / "cache", "--feature-cache-gb", 0.1)
    run = (*given, *sources, "--hub-checkout", f"theirs={tmp_path / 'theirs'}", *cache)
    first = invoke(*run, "--out", out)
    assert first.exit_code == 0, first.output
    rows = list(csv.DictReader((out / "vos.csv").open()))
    names = list(dict.fromkeys(row["source"] for row in rows))
    assert names == ["encoder", "bilinear", "flowfeat", "flowfeat++", "theirs", "mine:net", "chance"]
    page = (out / "index.html").read_text()
    assert "encoder + FlowFeat++" in page and "encoder, bilinear" in page and "mine:net" in page
    run_line = records.read(out).last_run("vos")
    assert run_line is not None
    weights = run_line.weights
    assert (
        weights["encoder"] == weights["flowfeat++"]
        and len({weights[n] for n in ("encoder", "theirs", "mine:net")}) == 3
    )
    kept = sorted((tmp_path / "cache").glob("*/*.features"))
    again = invoke(*run, "--out", tmp_path / "again")
    assert again.stdout.replace("again", "out") == first.stdout, "features of the cache give the same figures"
    plain = invoke(*run[: -len(cache)], "--out", tmp_path / "plain")
    assert plain.stdout.replace("plain", "out") == first.stdout, "and so do features without one"
    assert sorted((tmp_path / "cache").glob("*/*.features")) == kept and len(kept) > 5 * 4


def test_refusals_are_one_line(given: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    wrong = {
        ("--sources", "theirs"): "--allow-download",
        ("--sources", "thiers"): "did you mean theirs",
        ("--source", "mine:nets"): "did you mean net",
        ("--hub-checkout", "theirs"): "must be NAME=PATH",
        ("--hub-checkout", "theirs=/no/such"): "there is no /no/such",
        ("--feature-cache-gb", "0"): "must be above 0",
        ("--sources", "teacher"): "holds no EMA decoder",
        ("--sources", "loftup_dinov2s", "--hub-checkout", f"loftup_dinov2s={tmp_path / 'theirs'}"): "cannot be made",
    }
    for arguments, message in wrong.items():
        result = invoke(*given, *arguments, "--out", tmp_path / "out")
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error")]
        assert result.exit_code == 1 and message in line, arguments


def test_vos_refines_and_knn_does_not() -> None:
    refining = {task.name for task in TASKS if task.refines}
    assert refining == {"vos", "segmentation", "segmentation-linear"}
    assert all(issubclass(task, VosTask) for task in TASKS if task.name.startswith("vos"))

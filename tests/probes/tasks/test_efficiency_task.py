"""The cost probe: every source's figures on this device, and what was left out is said."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from probes.cli import commands
from probes.report import records
from probes.sources.features import Features, Source
from probes.sources.flowfeat import Checkpoint
from probes.sources.table import create_sources
from probes.task import Context, Row
from probes.tasks import efficiency
from probes.tasks.efficiency import Efficiency
from probes.tasks.table import TASKS
from trainer import FlowFeat


class NoPictures:
    def save(self, *_: object) -> None:
        raise AssertionError("nothing to draw")

    crop = clip = save


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probes.metrics.cost.ENOUGH_S", 0.01)


def _rows(task: Efficiency, sources: list[Source]) -> dict[str, dict[str, float]]:
    (unit,) = task.units()
    steps: list[int] = []
    rows = unit.evaluate(sources, Context(torch.device("cpu"), 0, NoPictures(), steps.append))
    assert sum(steps) == unit.steps * len(sources)
    return {name: {**row.values, "left out": float("left out" in row.part)} for name, (row,) in rows.items()}


def test_figures_are_those_of_the_network(
    tiny: FlowFeat, tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(efficiency, "SIZES_PX", (224,))

    def one_second_per_channel(run: Callable[[], Features], device: torch.device) -> float:
        """In place of a clock, which other work on the machine moves."""
        found = run()
        return float(found.low_bdgf.shape[1] + (0 if found.high_bkhw is None else found.high_bkhw.shape[1]))

    monkeypatch.setattr(efficiency, "seconds", one_second_per_channel)
    encoder, fresh, trained = _rows(
        Efficiency(), create_sources(["encoder", "random_decoder", "flowfeat"], tiny_checkpoint)
    ).values()
    count = sum(one.numel() for one in tiny.parameters())
    assert trained["parameters"] == pytest.approx(count / 1e6) == fresh["parameters"] > encoder["parameters"] > 0
    assert trained["macs_224"] == fresh["macs_224"] > encoder["macs_224"] > 0
    assert trained["memory_224"] > 4 * (count + 224 * 224 * tiny.feature_dim) / 1e6 > encoder["memory_224"]
    width = encoder["rate_224"] ** -1
    assert trained["rate_224"] == fresh["rate_224"] == 1 / (width + tiny.feature_dim), "of its own features"


def test_sizes_over_the_budget_are_left_out_and_the_row_says_so(
    tiny_checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(efficiency, "seconds", lambda run, device: 0.5)
    monkeypatch.setattr(efficiency, "SIZES_PX", (32, 64, 128))
    (encoder,) = create_sources(["encoder"], tiny_checkpoint)
    context = Context(torch.device("cpu"), 0, NoPictures(), lambda steps: None)

    def measured(budget_s: float) -> Row:
        (unit,) = Efficiency(budget_s=budget_s).units()
        return unit.evaluate([encoder], context)["encoder"][0]

    assert measured(8.1).part == "batch 1", "128 px: 4 passes of 4 times 0.5 s"
    row = measured(7.0)
    assert row.part == (
        "batch 1; 64 px left out, at least 8 s, over the budget of 7 s; "
        "128 px left out, at least 32 s, over the budget of 7 s"
    )
    assert "macs_32" in row.values and "macs_64" not in row.values and "128 px left out" in caplog.text
    with pytest.raises(ValueError, match="--efficiency-budget 0 must be above 0"):
        Efficiency(budget_s=0)


def test_by_command(checkpoint: Path, tmp_path: Path) -> None:
    given = ["efficiency", "--model", str(checkpoint), "--out", str(tmp_path), "--efficiency-budget", "0.001"]
    result = CliRunner().invoke(commands(TASKS), [*given, "--sources", "encoder,flowfeat"])
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader((tmp_path / "efficiency.csv").open()))
    assert "448 px left out" in rows[0]["measurement"] and float(rows[0]["macs_224"]) > 0 and rows[0]["macs_448"] == ""
    page = (tmp_path / "index.html").read_text()
    assert "Cost of the features" in page and "23.43" in page and "None is of this run&#x27;s encoder" in page
    run = records.read(tmp_path).last_run("efficiency")
    assert run is not None and "thread" in str(run.settings["device"]), "times of another device are another table"


def test_all_leaves_it_out_unless_asked() -> None:
    assert not Efficiency().has_data() and Efficiency(wanted=True).has_data()
    (paper,) = Efficiency.references({"variant": "dinov2_vits14"}, 1)
    assert paper.rows[2] == ["DINO2-S14 + FlowFeat *", "23.43", "105.82"]
    assert paper.note.endswith("Starred: this run's encoder (dinov2_vits14).")

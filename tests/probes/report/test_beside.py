"""The paper's figures beside ours: a difference under the paper's protocol alone; else what keeps the two apart, in words."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from probes.paper import BACKBONES, PROTOCOLS, published
from probes.paper_tables import CLASSES, TABLES, PaperTable
from probes.report.beside import beside_note, beside_table
from probes.report.build import rebuild
from probes.report.results_csv import results_csv
from probes.report.store import UnitRecord
from probes.report.tables import Section
from probes.sources.table import source_names
from probes.task import Row, Scalar, Settings
from probes.tasks.efficiency import Efficiency
from probes.tasks.table import TASKS
from probes.tasks.vos import LinearVos
from tests.probes.report.sample_results import EVIL, sample_results, write_run


def papers_section() -> Section:
    """The sample's scores as if they were of the paper's 30 sequences and settings."""
    results = sample_results()
    results.settings |= {"iterations": 500, "standardise": False, "objects": "separate"}
    results.units = {f"s{number}": results.units["one"] for number in range(30)}
    results.selection = list(results.units)
    return Section(LinearVos, results)


def test_under_the_papers_protocol_there_is_a_difference() -> None:
    table = beside_table(papers_section())
    assert table is not None
    assert table.rows == [
        ["encoder alone", "J&F", "30.0", "57.5", "-27.5"],
        ["encoder alone", "J mean", "20.0", "54.2", "-34.2"],
        ["encoder alone", "F mean", "40.0", "60.7", "-20.7"],
        ["encoder + random decoder", "J&F", "35.0", "58.7", "-23.7"],
        ["encoder + random decoder", "J mean", "30.0", "55.2", "-25.2"],
        ["encoder + random decoder", "F mean", "40.0", "62.2", "-22.2"],
        ["encoder + FlowFeat (YouTube-VOS)", "J&F", "40.0", "65.8", "-25.8"],
        ["encoder + FlowFeat (YouTube-VOS)", "J mean", "40.0", "62.0", "-22.0"],
        ["encoder + FlowFeat (YouTube-VOS)", "F mean", "40.0", "69.7", "-29.7"],
        ["encoder + FlowFeat (Kinetics)", "J&F", "40.0", "64.6", "-24.6"],
        ["encoder + FlowFeat (Kinetics)", "J mean", "40.0", "61.0", "-21.0"],
        ["encoder + FlowFeat (Kinetics)", "F mean", "40.0", "68.2", "-28.2"],
    ]
    assert "the same protocol" in beside_note(papers_section())
    lines = list(csv.DictReader(io.StringIO(results_csv([papers_section()]))))
    (line,) = [one for one in lines if one["source"] == "encoder" and one["metric"] == "JF"]
    assert (line["value"], line["paper"], line["difference"], line["protocol"]) == ("30.000", "57.5", "-27.5", "d1ge5t")


@pytest.mark.parametrize(
    ("change", "words"), [({"height": 160}, "height 160, not 480"), ({"iterations": 40}, "iterations 40, not 500")]
)
def test_under_another_protocol_there_is_none(change: dict[str, int], words: str) -> None:
    section = papers_section()
    section = replace(section, results=replace(section.results, settings={**section.results.settings, **change}))
    table = beside_table(section)
    assert table is not None and {row[-1] for row in table.rows} == {"-"}
    assert "Not the paper's protocol" in beside_note(section) and words in beside_note(section)
    assert all(not line["difference"] for line in csv.DictReader(io.StringIO(results_csv([section]))))


def test_other_data_is_another_protocol() -> None:
    section = Section(LinearVos, sample_results())
    assert "2 sequences, not 30" in beside_note(section)


def test_an_encoder_that_the_paper_has_not_gets_no_row() -> None:
    section = papers_section()
    section.results.settings["variant"] = "demo_vit8"
    assert beside_table(section) is None


ON_TOKENS = LinearVos(decoder_grid="tokens")


def test_the_tables_name_tasks_metrics_and_backbones_that_exist() -> None:
    by_name = {task.name: task for task in TASKS}
    for table in TABLES:
        task = by_name[PROTOCOLS[table.protocol].task]
        assert all(task.metric(name) for name in table.metrics), table.name
        assert {row.backbone for row in table.rows} <= {"", *BACKBONES.values()}
        assert {row.source for row in table.rows} <= {"", *source_names()}
        assert {len(row.values) for row in table.rows} == {len(table.metrics or table.titles)}
    for name, protocol in PROTOCOLS.items():
        # A setting that is absent under the paper's protocol (None) is said where it is not the default.
        task = by_name[protocol.task]
        sayable = set(task().settings()) | (set(ON_TOKENS.settings()) if task.name == "vos" else set())
        assert {*protocol.settings, *protocol.choice} <= sayable, name
    assert len(list(published("vos", {"variant": "dinov2_vits14"}))) == 3 * 7, "VideoMAE stands on no encoder of ours"
    assert {one.source for one in published("vos", {"variant": "demo_vit8"})} == {"videomae"}


@pytest.mark.parametrize(
    "table", [table for table in TABLES if "JF" in table.metrics], ids=lambda table: table.protocol
)
def test_j_and_f_have_the_printed_mean(table: PaperTable) -> None:
    """A misread figure would not: J&F is the mean of J and F, rounded once more."""
    for row in table.rows:
        both, j, f = row.values
        assert both is not None and j is not None and f is not None
        assert abs(both - (j + f) / 2) <= 0.1001, row.method


def test_every_table_of_the_paper_stands_in_a_report() -> None:
    """5a and 6 are protocols of their own; 4 and 7 stand with the probes that measure the like."""
    runs: tuple[Settings, ...] = (
        {},
        {"decoder grid": "tokens"},
        {"protocol": "dino480", "grid": 1},
        {"protocol": "dino480", "grid": 2},
    )
    found = {
        reference.title
        for task in TASKS
        for settings in runs
        for reference in task.references({"variant": "dinov2_vits14", **settings}, 1)
    }
    assert found == {f"The paper's {table.name}" for table in TABLES}
    assert CLASSES.rows[5].values == (81.7, 59.3, 60.5, 73.0, 45.7)


def test_rates_compare_on_the_papers_device_alone() -> None:
    macs_and_rate = {"macs_224": 23.5, "rate_224": 50.0}
    for device, difference in (("Quadro RTX 8000", "-55.82"), ("cpu, 2 threads", "-")):
        settings: dict[str, Scalar] = {"variant": "dinov2_vits14", "batch": 1, "budget_s": 20.0, "device": device}
        units = {"this device": UnitRecord("f", {}, {"flowfeat": [Row("all", macs_and_rate)]})}
        section = Section(
            Efficiency,
            replace(
                sample_results(),
                task="efficiency",
                settings=settings,
                units=units,
                selection=["this device"],
                sources=["flowfeat"],
            ),
        )
        table = beside_table(section)
        assert table is not None
        assert [row[1:] for row in table.rows if "FlowFeat" in row[0]] == [
            ["MACs at 224 px (G)", "23.50", "23.43", "+0.07"],
            ["pictures/s at 224 px", "50.00", "105.82", difference],
        ]


def test_curves_of_a_run_and_names_that_bite(tmp_path: Path) -> None:
    run = tmp_path / "<b>run"
    run.mkdir()
    (run / "log.jsonl").write_text("".join(f'{{"event": "step", "step": {s}, "loss": {9 - s}.5}}\n' for s in (1, 2, 3)))
    write_run(tmp_path / "out", 0.5, model=EVIL)
    rebuild(tmp_path / "out", TASKS, run)
    page, markdown = (tmp_path / "out/index.html").read_text(), (tmp_path / "out/report.md").read_text()
    assert "<polyline" in page and "total loss 8.5 at step 1, 6.5 at step 3" in page and "<b>run" not in page
    assert "total loss 8.5 at step 1" in markdown and "<b>run" not in markdown and EVIL not in markdown
    rebuild(tmp_path / "out", TASKS)
    assert "<polyline" not in (tmp_path / "out/index.html").read_text()

"""The paper's figures beside ours: a difference under the paper's protocol alone; else what keeps the two apart, in words."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from probes.paper import BACKBONES, PROTOCOLS, TABLES, published
from probes.report.beside import beside_note, beside_table
from probes.report.build import rebuild
from probes.report.results_csv import results_csv
from probes.report.tables import Section
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
        ["encoder + random decoder", "J&F", "35.0", "58.7", "-23.7"],
        ["encoder + FlowFeat (YouTube-VOS)", "J&F", "40.0", "65.8", "-25.8"],
        ["encoder + FlowFeat (Kinetics)", "J&F", "40.0", "64.6", "-24.6"],
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
        assert by_name[table.task].metric(table.metric) and table.task in PROTOCOLS
        assert set(table.figures) <= set(BACKBONES.values())
        assert {len(row) for row in table.figures.values()} == {len(table.columns)}
    for name, protocol in PROTOCOLS.items():
        # A setting that must be absent under the paper's protocol (None) is said where it is not the default.
        sayable = set(by_name[name]().settings()) | (set(ON_TOKENS.settings()) if name == "vos" else set())
        assert set(protocol.settings) <= sayable, name
    assert len(list(published("vos", "dinov2_vits14"))) == 4


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

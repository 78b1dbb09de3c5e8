"""Tables and the CSV: which figures stand where."""

from __future__ import annotations

import csv
import io

import pytest

from probes.report import tables
from probes.report.markdown import markdown_text
from probes.report.records import CHANCE
from probes.report.store import Results
from probes.report.tables import Section
from probes.task import Metric, Row, Settings, Task, Unit
from probes.tasks.vos import LinearVos
from tests.probes.report.sample_results import EVIL, SOURCES, sample_results, sample_section


def test_csv_has_the_promised_rows() -> None:
    rows = list(csv.DictReader(io.StringIO(tables.csv_text(sample_section()))))
    assert list(rows[0]) == ["source", "sequence", "object", "J", "F", "JF", "protocol"]
    assert [r["source"] for r in rows if r["sequence"] == "mean"] == SOURCES
    assert len(rows) == 3 * (3 + 1)
    encoder = [r for r in rows if r["source"] == "encoder"]
    assert [(r["sequence"], r["object"]) for r in encoder] == [("one", "1"), (EVIL, "1"), (EVIL, "2"), ("mean", "")]
    assert [float(r["J"]) for r in encoder] == pytest.approx([20, 50, 80, 50])
    assert [float(r["F"]) for r in encoder] == pytest.approx([40, 10, 70, 40])
    assert [float(r["JF"]) for r in encoder] == pytest.approx([30, 30, 75, 45])
    assert encoder[0]["J"] == "20.000", "three decimals"


def test_means_are_taken_over_objects() -> None:
    table = tables.main_table(sample_section())
    assert table.header == ["features", "J&F", "J mean", "J recall", "J decay", "F mean", "F recall", "F decay"]
    assert table.rows[0] == ["encoder alone", "45.0", "50.0", "25.0", "10.0", "40.0", "20.0", "-10.0"]
    assert table.best == 2
    assert tables.scope_note(sample_section()) == "Means over 3 objects of 2 sequences. Protocol d1ge5t."


def test_the_table_of_units_has_their_facts() -> None:
    table = tables.unit_table(sample_section())
    assert table.header[:3] == ["sequence", "frames", "objects"]
    assert table.rows[1] == [EVIL, "12", "2", "52.5", "55.0", "57.5"]


def test_incomplete_units_stay_out_and_are_mentioned() -> None:
    results = sample_results()
    del results.units["one"].rows["flowfeat"]
    assert results.complete() == [EVIL]
    assert tables.coverage_note(Section(LinearVos, results)).startswith("Incomplete: 1 of 2 sequences")
    assert tables.coverage_note(sample_section()) == ""


class _Errors(Task):
    """A task whose metrics are neither shares nor better when higher, and not all measured everywhere."""

    name = "vos"
    title = "Errors"
    description = "Errors of single objects."
    unit, part, step = LinearVos.unit, LinearVos.part, LinearVos.step
    metrics = (Metric("px", "error", higher_is_better=False, decimals=2, suffix="px"), Metric("speed", "speed"))
    headline = "px"

    def units(self) -> list[Unit]:
        return []

    def settings(self) -> Settings:
        return {}


def test_units_of_measurement_gaps_and_lower_is_better() -> None:
    results = Results("vos", {}, {}, ["a"], ["encoder", "flowfeat"], digest="d")
    results.units["a"] = sample_results().units["one"]
    results.units["a"].rows = {
        "encoder": [Row("1", {"px": 1.5}), Row("2", {"px": 2.5, "speed": 7.0})],
        "flowfeat": [Row("1", {"px": 1.0})],
    }
    section = Section(_Errors, results)
    table = tables.main_table(section)
    assert table.header == ["features", "error (px)", "speed"]
    assert table.rows == [["encoder alone", "2.00", "7.0"], ["encoder + FlowFeat", "1.00", "-"]]
    assert table.best == 1
    assert tables.csv_text(section).splitlines()[-1] == "flowfeat,mean,,1.0000,,d"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused_where_it_arises(value: float) -> None:
    with pytest.raises(ValueError, match="J of '3' is"):
        Row("3", {"J": value})


def test_parts_with_names_have_a_table_over_all_units(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tables.part_table(sample_section()) is None
    monkeypatch.setattr(LinearVos, "named_parts", True)
    table = tables.part_table(sample_section())
    assert table is not None
    assert table.header == ["object", "encoder alone", "encoder + random decoder", "encoder + FlowFeat"]
    assert table.rows == [["1", "30.0", "35.0", "40.0"], ["2", "75.0", "75.0", "75.0"]]
    assert "## J&F per object" in markdown_text([sample_section()])


def test_chance_stands_last_and_is_never_the_best() -> None:
    section = sample_section()
    for name in section.results.selection:
        section.results.units[name].rows[CHANCE] = [Row("1", {"JF": 0.99})]
    table = tables.main_table(section)
    assert table.rows[-1][:2] == [tables.CHANCE_TITLE, "99.0"] and table.best == 2
    assert tables.csv_text(section).splitlines()[-1].startswith("chance,mean,,")
    del section.results.units["one"].rows[CHANCE]
    assert tables.main_table(section).rows[-1][0] == "encoder + FlowFeat", "not known for every unit"

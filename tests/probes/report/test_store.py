"""From records to rows of tables: which rows meet, which never do, and where pictures go."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from probes.report import records, tables
from probes.report.build import rebuild, stored_sections
from probes.report.pictures import PictureFolder, file_name
from probes.report.records import Picture
from probes.report.store import UnitRecord, differing, results_of
from probes.report.tables import Section
from probes.tasks.table import TASKS
from tests.probes.report.sample_results import SOURCES, write_run


def sections(out: Path) -> list[Section]:
    return stored_sections(records.read(out), TASKS)


def test_models_of_one_protocol_share_a_table_and_are_ranked(tmp_path: Path) -> None:
    write_run(tmp_path, 0.9, weights="b" * 64, model="b.safetensors", sources=["flowfeat"])
    write_run(tmp_path, 0.5)
    (section,) = sections(tmp_path)
    assert not section.others
    table = tables.main_table(section)
    names = ["encoder alone", "encoder + random decoder", "encoder + FlowFeat"]
    assert [row[0] for row in table.rows] == [*names, "encoder + FlowFeat, b.safetensors bbbbbbbb"]
    assert table.best == 3


@pytest.mark.parametrize("other", [{"height": 240}, {"data": {"one": "f1"}}, {"data": {"one": "f1", "two": "changed"}}])
def test_rows_of_other_protocols_never_meet(tmp_path: Path, other: dict[str, object]) -> None:
    write_run(tmp_path, 0.9, weights="b" * 64, **other)  # type: ignore[arg-type]
    write_run(tmp_path, 0.5)
    (section,) = sections(tmp_path)
    assert len(section.others) == 1
    assert section.results.digest != section.others[0].results.digest
    for one, score in ((section, "50.0"), (section.others[0], "90.0")):
        assert {row[1] for row in tables.main_table(one).rows} == {score}
    rebuild(tmp_path, TASKS)
    for name in ("index.html", "report.md"):
        text = (tmp_path / name).read_text()
        assert tables.NEVER_RANKED in text and "Under other protocols" in text
        assert section.results.digest in text and section.others[0].results.digest in text
    lines = [line.split(",") for line in (tmp_path / "results.csv").read_text().splitlines()[1:]]
    assert {(line[1], line[5]) for line in lines if line[4] == "JF"} == {
        (section.results.digest, "50.000"),
        (section.others[0].results.digest, "90.000"),
    }
    assert section.others[0].results.digest not in (tmp_path / "vos.csv").read_text()


def test_what_was_asked_for_last_is_on_top(tmp_path: Path) -> None:
    write_run(tmp_path, 0.5, height=240)
    write_run(tmp_path, 0.6)
    assert sections(tmp_path)[0].results.settings["height"] == 480
    write_run(tmp_path, 0.5, height=240, sources=["encoder"], measured=False)
    (section,) = sections(tmp_path)
    assert section.results.settings["height"] == 240
    assert section.results.sources == SOURCES, "measured before, under the same protocol: still there"


def test_units_measured_in_another_selection_count(tmp_path: Path) -> None:
    write_run(tmp_path, 0.5, data={"one": "f1"})
    write_run(tmp_path, 0.5, data={"two": "f2"})
    write_run(tmp_path, 0.5, measured=False)
    assert sections(tmp_path)[0].results.complete() == ["one", "two"]


def test_an_unfinished_model_does_not_hide_the_last_one(tmp_path: Path) -> None:
    write_run(tmp_path, 0.9, weights="b" * 64, measured=False)
    write_run(tmp_path, 0.5)
    assert sections(tmp_path)[0].results.sources == SOURCES


def test_pictures_follow_the_names_of_rows(tmp_path: Path) -> None:
    write_run(tmp_path, 0.5)
    stored = records.read(tmp_path)
    for line in stored.units.values():
        line.pictures.extend(
            [Picture("1", "frame", "", "f.jpg"), Picture("1", "mask", line.source, f"{line.source}.jpg")]
        )
    (results,) = results_of(stored, "vos")
    assert [(one.source, one.file) for one in results.units["one"].pictures] == [
        ("", "f.jpg"),
        *((source, f"{source}.jpg") for source in SOURCES),
    ]


def test_rebuild_without_results(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no results in"):
        rebuild(tmp_path, TASKS)
    write_run(tmp_path, 0.5, measured=False)
    with pytest.raises(ValueError, match="no sequence that is measured"):
        rebuild(tmp_path, TASKS)


def test_differing_settings_are_named() -> None:
    assert differing({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == "b 2 -> 3, c None -> 4"
    assert differing({"a": 1}, {"a": 1}) == ""


def test_a_new_picture_replaces_the_old_one_of_its_place() -> None:
    record = UnitRecord("f", pictures=[Picture("1", "mask", "encoder", "old.jpg"), Picture("1", "frame", "", "f.jpg")])
    record.add_pictures([Picture("1", "mask", "encoder", "new.jpg"), Picture("1", "mask", "flowfeat", "other.jpg")])
    assert [picture.file for picture in record.pictures] == ["new.jpg", "f.jpg", "other.jpg"]


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a/b", "../../etc", "a\\b", "line\nbreak", "50%"])
def test_no_name_leads_out_of_the_pictures_folder(tmp_path: Path, name: str) -> None:
    folder = PictureFolder(tmp_path / "report", "vos", name)
    folder.save(name, "frame", Image.new("RGB", (4, 4)))
    (saved,) = folder.saved
    written = tmp_path / "report" / saved.file
    assert written.is_file()
    assert written.resolve().parents[1] == (tmp_path / "report/pictures/vos").resolve()


def test_file_names_differ_where_names_do() -> None:
    names = ["a/b", "a%2Fb", "a_b", "a b", ".a", "%2Ea"]
    assert len({file_name(name) for name in names}) == len(names)
    assert file_name("<i>drift & co") == "<i>drift & co"

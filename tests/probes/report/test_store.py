"""Stored results: what comes back, what is refused, what is written beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from probes.report.build import rebuild
from probes.report.pictures import PictureFolder, file_name
from probes.report.store import OtherFormat, Picture, Results, UnitRecord, differing
from probes.tasks.table import TASKS
from tests.probes.report.sample_results import SOURCES, sample_results


def test_results_survive_a_round_trip(tmp_path: Path) -> None:
    results = sample_results()
    results.units["one"].pictures = [Picture("00001", "mask", "encoder", "pictures/vos/one/00001.encoder.mask.jpg")]
    results.save(tmp_path / "vos.json")
    assert Results.load(tmp_path / "vos.json") == results


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"format": 2}',
        '{"format": 2, "units": {"a": {}}}',
        "\xff",
        '{"format": 2, "units": {"a": {"rows": {"encoder": [{"part": "1", "values": {"J": NaN}}]}}}}',
    ],
)
def test_damaged_results_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "vos.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"damaged or no results file|J of '1' is nan"):
        Results.load(path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vos.json").write_text('{"format": 99}')
    with pytest.raises(OtherFormat, match="format 99"):
        Results.load(tmp_path / "vos.json")


def test_rebuild_without_results(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no results in"):
        rebuild(tmp_path, TASKS)
    Results("vos", {}, {}, ["a"], SOURCES).save(tmp_path / "vos.json")
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

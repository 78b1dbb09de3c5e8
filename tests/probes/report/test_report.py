"""Tables, page and stored results: contents, escaping, resumption."""

from __future__ import annotations

import csv
import io
import os
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probes.metrics.davis import Statistics
from probes.report import build as report
from probes.report import tables
from probes.report.page import page
from probes.report.store import ObjectScore, Results, SequenceRecord, differing
from shards.files import write_atomic

SOURCES = ["encoder", "random_decoder", "flowfeat"]
EVIL = '"><script>alert(1)</script> & |'


def _score(j: float, f: float) -> ObjectScore:
    return ObjectScore(Statistics(j, j / 2, 0.1), Statistics(f, f / 2, -0.1))


def _results() -> Results:
    """Two sequences: one object and two objects, so that a mean over objects differs from a mean over sequences."""
    results = Results(
        {"variant": "dinov2_vits14", "height": 480, "model": EVIL}, {"device": "cpu"}, ["one", EVIL], SOURCES
    )
    results.sequences["one"] = SequenceRecord(
        "f", 9, 480, 854, {s: [_score(0.2 + i / 10, 0.4)] for i, s in enumerate(SOURCES)}
    )
    two = {s: [_score(0.5 + i / 10, 0.1), _score(0.8, 0.7)] for i, s in enumerate(SOURCES)}
    results.sequences[EVIL] = SequenceRecord("g", 12, 480, 854, two)
    results.sequences["never asked for"] = SequenceRecord("h", 5, 480, 854, {"encoder": [_score(0.0, 0.0)]})
    return results


def test_csv_has_the_promised_rows() -> None:
    rows = list(csv.DictReader(io.StringIO(tables.csv_text(_results()))))
    assert list(rows[0]) == ["source", "sequence", "object", "J", "F", "JF"]
    assert [r["source"] for r in rows if r["sequence"] == "mean"] == SOURCES
    assert len(rows) == 3 * (3 + 1)
    encoder = [r for r in rows if r["source"] == "encoder"]
    assert [(r["sequence"], r["object"]) for r in encoder] == [("one", "1"), (EVIL, "1"), (EVIL, "2"), ("mean", "")]
    assert [float(r["J"]) for r in encoder] == pytest.approx([20, 50, 80, 50])
    assert [float(r["F"]) for r in encoder] == pytest.approx([40, 10, 70, 40])
    assert [float(r["JF"]) for r in encoder] == pytest.approx([30, 30, 75, 45])


def test_recall_and_decay_are_means_over_objects() -> None:
    row = tables.summarise_source(_results(), "encoder")
    assert (row.J_recall, row.J_decay, row.F_decay) == pytest.approx((25, 10, -10))
    assert row.objects == 3


def test_incomplete_sequences_stay_out_and_are_mentioned() -> None:
    results = _results()
    del results.sequences["one"].scores["flowfeat"]
    assert results.complete() == [EVIL]
    assert tables.coverage_note(results).startswith("Incomplete: 1 of 2")
    assert "Incomplete: 1 of 2" in report.markdown_text(results)


def test_the_papers_row_is_starred() -> None:
    _, rows = tables.paper_table(_results())
    assert rows[3] == ["DINO2-S14 *", "57.5", "58.7", "65.8", "64.6"]
    assert "starred" in tables.paper_note(_results())
    unknown = Results({"variant": "demo_vit8"})
    assert not any("*" in row[0] for row in tables.paper_table(unknown)[1])


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_escapes_names_and_needs_nothing_from_outside(tmp_path: Path) -> None:
    results = _results()
    name = "pictures/a b&c/00001.frame.jpg"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(b"x")
    results.sequences["one"].pictures = {"00001": {"frame": name, "truth": "pictures/gone.jpg"}}
    parsed = _Tags()
    parsed.feed(page(results, tmp_path))
    assert "script" not in parsed.tags
    assert EVIL in parsed.text
    assert parsed.addresses == ["pictures/a%20b%26c/00001.frame.jpg"], "pictures that aren't there are left out"
    assert any("65.8" in text for text in parsed.text)


def test_results_survive_a_round_trip(tmp_path: Path) -> None:
    results = _results()
    results.save(tmp_path / "vos.json")
    assert Results.load(tmp_path / "vos.json") == results


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": 1, "sequences": {"a": {}}}', "\xff"])
def test_damaged_results_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "vos.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match="damaged or no results file"):
        Results.load(path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vos.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="format 99"):
        Results.load(tmp_path / "vos.json")


def test_rebuild_without_results(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no results in"):
        report.rebuild(tmp_path)
    Results({}, {}, ["a"], SOURCES).save(tmp_path / "vos.json")
    with pytest.raises(ValueError, match="no sequence that is measured"):
        report.rebuild(tmp_path)


def test_differing_settings_are_named() -> None:
    assert differing({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == "b 2 -> 3, c None -> 4"
    assert differing({"a": 1}, {"a": 1}) == ""


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.md"
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.md"]


def test_markdown_cells_cannot_break_the_table() -> None:
    text = tables_text = report.markdown_table(["a", "b"], [[EVIL, "1"]])
    assert len(tables_text.splitlines()) == 3
    assert text.splitlines()[2].replace("\\|", "").count("|") == 3
    assert "<script>" not in text


def test_sizes_of_pictures() -> None:
    from probes.drawing import display_size, picked_frames

    assert display_size(480, 854) == (480, 270)
    assert display_size(64, 96) == (96, 64)
    assert picked_frames(60) == [29, 58]
    assert picked_frames(3) == [1], "first and last frame are never shown"


def test_overlay_tints_the_object_only() -> None:
    from probes.drawing import COLOURS, overlay

    labels = np.zeros((20, 30), np.uint8)
    labels[5:15, 5:25] = 2
    drawn = np.asarray(overlay(Image.new("RGB", (30, 20), (100, 100, 100)), labels, (30, 20)))
    assert (drawn[labels == 0] == 100).all()
    np.testing.assert_allclose(drawn[10, 15], (100 + COLOURS[1]) / 2, atol=1)
    np.testing.assert_allclose(drawn[5, 15], COLOURS[1], atol=1)

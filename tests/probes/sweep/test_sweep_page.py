"""The sweep's table as CSV, Markdown and page: the numbers are there, names are text, nothing is fetched or run."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

from probes.sweep import tables
from probes.sweep.charts import curve_chart, dot_chart
from probes.sweep.command import write_tables
from probes.sweep.comparison import Line, compare
from tests.probes.sweep.small_record import NASTY, probe_of, row, write_record
from trainer import SweepRecord


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def judged(out: Path) -> tuple[SweepRecord, list[Line]]:
    record = write_record(
        out,
        row("full", title="FlowFeat", paper=None),
        row("nasty", title=NASTY, settings=[f'encoder.weights="{NASTY}"'], paper=-1.5),
        row("broken", status="failed", error=NASTY),
    )
    figures = {
        "full": {0: {"JF": 50.0, "J": 52.0}, 1: {"JF": 51.0, "J": 53.0}},
        "nasty": {0: {"JF": 44.0, "J": 46.0}, 1: {"JF": 46.5, "J": 47.0}},
    }
    return record, compare(record, "JF", figures)


def test_csv_holds_every_figure(tmp_path: Path) -> None:
    _, lines = judged(tmp_path)
    full, nasty, broken = csv.DictReader(tables.csv_text("JF", lines).splitlines())
    assert (full["JF_mean"], full["verdict"], full["difference_mean"]) == ("50.5000", "baseline", "")
    assert nasty["title"] == NASTY and nasty["verdict"] == "below" and nasty["paper_difference"] == "-1.5"
    assert [nasty[f"difference_{which}"] for which in ("mean", "low", "high")] == ["-5.2500", "-6.0000", "-4.5000"]
    assert [nasty["JF_seed_0"], nasty["JF_seed_1"], nasty["J_mean"]] == ["44.0000", "46.5000", "46.5000"]
    assert broken["verdict"] == "not judged" and NASTY in broken["note"] and broken["JF_mean"] == ""


def test_markdown_keeps_its_columns(tmp_path: Path) -> None:
    record, lines = judged(tmp_path)
    text = tables.markdown(record, probe_of(record), lines, "data")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {9}
    assert "<script" not in text and "| -5.2" not in text and "▼ -5.2 (-6.0 … -4.5)" in text
    assert "| row | seeds | J&F |" in table[0] and "Probe vos (height 64, iterations 5), on data." in text


def test_figures_have_the_decimals_and_the_direction_of_their_probe(tmp_path: Path) -> None:
    record = write_record(tmp_path, row("full"), row("other"), task="depth", metric="rmse")
    figures = {"full": {0: {"rmse": 0.556}, 1: {"rmse": 0.558}}, "other": {0: {"rmse": 0.527}, 1: {"rmse": 0.528}}}
    lines = compare(record, "rmse", figures)
    text = tables.markdown(record, probe_of(record), lines, "")
    assert "RMSE (m), lower is better" in text and "▼ -0.030 (-0.030 … -0.029)" in text and "| 0.527 … 0.528 |" in text
    assert "seed 1: 0.5580</title>" in dot_chart(lines, "RMSE", 3) and re.search(
        r">0\.\d{3}</text>", dot_chart(lines, "", 3)
    )


def test_page_shows_names_as_text_and_fetches_nothing(tmp_path: Path) -> None:
    record, lines = judged(tmp_path)
    write_tables(record, probe_of(record), lines, tmp_path, "data & more")
    text = (tmp_path / "index.html").read_text()
    tags = Tags(text).seen
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "a", "image", "use"}
    assert not [attributes for _, attributes in tags if {"src", "href", "xlink:href", "onload"} & attributes.keys()]
    assert not re.search(r"https?:|url\(|@import", text)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp;" in text and "data &amp; more" in text
    assert text.count("<svg") == 3  # the dots, and a curve of each row that was trained
    assert (tmp_path / "sweep.csv").is_file() and (tmp_path / "sweep.md").is_file()


def test_charts_are_well_formed_and_inside_their_frame(tmp_path: Path) -> None:
    _, lines = judged(tmp_path)
    dots = ElementTree.fromstring(dot_chart(lines, "J&F"))
    circles = [node for node in dots if node.tag == "circle"]
    assert len(circles) == 4
    assert all(0 <= float(node.get("cx", "nan")) <= float(dots.get("width", "nan")) for node in circles)
    drawn = curve_chart(NASTY, {0: [(1, 2.0), (2, 1.0)], 1: [(1, 2.5), (2, 0.5)], 2: [(1, 9.0)]})
    curves = [node for node in ElementTree.fromstring(drawn) if node.tag == "polyline"]
    assert len(curves) == 2  # one point is no curve
    first, last = (tuple(map(float, point.split(","))) for point in curves[0].get("points", "").split())
    assert first[0] < last[0] and first[1] < last[1]  # steps go right, a falling loss goes down
    flat = curve_chart("flat", {0: [(1, 1.0), (2, 1.0)]})
    assert "nan" not in flat and flat
    assert dot_chart([], "J&F") == "" and curve_chart("none", {}) == ""

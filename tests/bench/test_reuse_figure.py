"""The picture of the reuse sweep: well formed, everything inside, more is higher, and what it cannot draw is said."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from click.testing import CliRunner

from bench.reuse_figure import main, read_rows

TABLE = """row,title,source,settings,seeds,JF_mean,JF_seed_0,JF_seed_1
a,a,flowfeat,data.offsets=[1]; data.passes=1,2,41,40.0,42.0
b,b,flowfeat,data.offsets=[1]; data.passes=8,2,46,45.0,47.0
c,c,flowfeat,"data.offsets=[-2, -1, 1, 2]; data.passes=1",2,44,43.0,45.0
d,d,flowfeat,"data.offsets=[-2, -1, 1, 2]; data.passes=8",1,48,48.0,
e,fresh <pairs>,flowfeat,"data.offsets=[-2, -1, 1, 2]",2,49,48.5,49.5
f,left out,flowfeat,data.passes=2,0,,,
"""
SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_shows_every_judged_row(tmp_path: Path) -> None:
    (tmp_path / "sweep.csv").write_text(TABLE)
    done = CliRunner().invoke(main, ["--sweep", str(tmp_path), "--out", str(tmp_path / "a.svg")])
    assert done.exit_code == 0 and "5 rows" in done.output
    picture = ElementTree.fromstring((tmp_path / "a.svg").read_text())
    width, height = float(picture.get("width", "")), float(picture.get("height", ""))
    dots = [(float(node.get("cx", "")), float(node.get("cy", ""))) for node in picture.iter(f"{SVG}circle")]
    assert len(dots) == 7 and all(0 < x < width and 0 < y < height for x, y in dots)
    lines = [node.get("points", "").split() for node in picture.iter(f"{SVG}polyline")]
    assert len(lines) == 2
    for line in lines:
        (x1, y1), (x2, y2) = (tuple(map(float, point.split(","))) for point in line)
        assert x1 < x2 and y1 > y2  # more passes to the right, a better figure higher up
    texts = [node.text for node in picture.iter(f"{SVG}text")]
    assert {"fresh <pairs>", "1 neighbour per anchor", "4 neighbours per anchor", "1", "8"} <= set(texts)


def test_a_table_that_cannot_be_drawn_is_one_line(tmp_path: Path) -> None:
    missing = CliRunner().invoke(main, ["--sweep", str(tmp_path), "--out", str(tmp_path / "a.svg")])
    assert missing.exit_code == 1 and "judge the sweep first" in missing.output
    (tmp_path / "sweep.csv").write_text("\n".join(TABLE.splitlines()[:1] + TABLE.splitlines()[5:]))
    other = CliRunner().invoke(main, ["--sweep", str(tmp_path), "--out", str(tmp_path / "a.svg")])
    assert other.exit_code == 1 and "it is no reuse sweep" in other.output
    (tmp_path / "sweep.csv").write_text(TABLE)
    assert read_rows(tmp_path / "sweep.csv")[1][0].mean == 41.0

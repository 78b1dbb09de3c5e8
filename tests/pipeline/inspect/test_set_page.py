"""The page of a set: sums that close, drops by reason, escaped, self-contained, bounded, readable on a phone."""

from __future__ import annotations

import csv
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.inspect.set_page import write_set_page
from pipeline.inspect.shard_table import MOST_ROWS, OUTLIERS, UNFOLDED, ShardRow, shards_csv, shards_html
from pipeline.inspect.statistics import (
    MOTION_EDGES_PX,
    OffsetCount,
    SetStatistics,
    ShardCount,
    add_samples,
    statistics_of,
)
from pipeline.inspect.windows import random_samples
from shards import schema
from shards.reader import ShardSet
from shards.schema import ShardInfo
from tests.browser import PHONE_PX, looked_at, needs_chromium
from tests.pipeline.extract.small_extraction import digests
from tests.shards.bucket_store import bucket_at
from tests.shards.small_set import CHUNKS, PASSES, flow_of, optional_of, write_set


@pytest.fixture(scope="module")
def shard_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("page") / "mine & <yours>", optional=optional_of)


@pytest.fixture(scope="module")
def page(shard_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "page"
    done = invoke(shard_set, "--page", out, "--samples", "3")
    assert done.exit_code == 0 and f"page: {out / 'index.html'}" in done.output
    return out


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, args)])


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "xlink:href")]


def test_the_statistics_are_those_of_the_samples(shard_set: Path) -> None:
    data = ShardSet(shard_set)
    found = statistics_of(str(shard_set), data.manifest)
    assert found.pairs == data.manifest.counts["pairs"] and sum(found.pairs.values()) == 4 * len(data)
    assert found.rejected == {"corrupt": CHUNKS} and found.engines == {"test": 2 * CHUNKS}
    assert {(count.ok, count.rejected) for count in found.chunks.values()} == {(2, 1)}
    assert found.steps == dict.fromkeys((-2, -1, 1, 2), len(data))
    assert [of.seconds for of in found.offsets] == pytest.approx([len(data) * s for s in (-0.2, -0.1, 0.1, 0.2)])
    lengths = [
        float(np.sqrt(np.square(flow_of(chunk, pass_index, position, 2)).sum(axis=0).mean()))
        for chunk in range(CHUNKS)
        for pass_index in range(PASSES)
        for position in range(2)
    ]
    assert found.offsets[2].motion.tolist() == np.histogram(lengths, MOTION_EDGES_PX)[0].tolist()
    median = found.offsets[2].median_px
    assert median is not None and min(lengths) / 1.2 < median < 1.2 * max(lengths)
    assert not found.confidence.any() and found.samples_still == 0


def test_confidence_is_counted_where_the_index_has_it(shard_set: Path) -> None:
    data = ShardSet(shard_set)
    table = pq.read_table(shard_set / schema.INDEX)
    half = [[0.1, None, 0.5, 0.99]] * len(data)
    place = table.schema.get_field_index("confidence")
    field = table.schema.field("confidence")
    changed = table.set_column(place, field, pa.array(half, field.type))
    found = SetStatistics([OffsetCount(offset) for offset in data.offsets])
    for batch in changed.to_batches():
        add_samples(found, batch)
    assert found.confidence.sum() == 3 * len(data) and found.confidence[4] == found.confidence[20] == len(data)
    assert found.confidence[39] == len(data)


def test_the_page_says_what_is_in_the_set_and_why_the_rest_is_not(shard_set: Path, page: Path) -> None:
    text = (page / "index.html").read_text()
    words = re.sub("<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", text, flags=re.S))
    assert "corrupt" in words and "the container cannot be read" in words and f"{CHUNKS} (33.3 %)" in words
    assert "not stored: the estimator gave NaN" in words and "Shot cuts were not looked for" in words
    assert len(re.findall(r"rim of the wheel: [\d.]+ px", words)) == 3 and words.count("Colours of flow") == 1
    data = ShardSet(shard_set)
    shown = [i for i in range(len(data)) if data.keys[i] in words]
    assert shown == random_samples(data, 3, 0), "the windows are those drawn"
    for i in shown:
        about = data.json(i)
        assert f"anchor: frame {about['frame']}, {about['time_s']:.3f} s" in words
        assert f"flow to +2: frame {about['neighbours']['p2']['frame']}" in words
    for info in data.manifest.shards:
        assert info.path in words and info.sha256[:12] in words
    assert "flow_size" in words and "estimator.name" in words


def test_the_page_is_one_file_that_asks_for_nothing(page: Path) -> None:
    text = (page / "index.html").read_text()
    tags = _Tags()
    tags.feed(text)
    assert not {"script", "link", "iframe", "object"} & set(tags.tags) and "url(" not in text and "@import" not in text
    assert [address for address in tags.addresses if not address.startswith("data:image/")] == ["shards.csv"]
    assert "mine &amp; &lt;yours&gt;" in text and "<yours>" not in text
    assert sorted(path.name for path in page.iterdir()) == ["index.html", "shards.csv"]


def test_every_shard_is_in_the_csv(shard_set: Path, page: Path) -> None:
    with open(page / "shards.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    manifest = ShardSet(shard_set).manifest
    assert [(row["shard"], int(row["bytes"]), row["sha256"]) for row in rows] == [
        (info.path, info.bytes, info.sha256) for info in manifest.shards
    ]
    assert all((row["videos"], row["rejected"]) == ("3", "1") for row in rows)


def test_of_thousands_of_shards_the_page_shows_sums_and_says_so() -> None:
    places = [(chunk, pass_index) for pass_index in range(16) for chunk in range(470)]
    rows = [
        ShardRow(
            ShardInfo(schema.shard_path(c, p), 200 + c % 57, 1000 * c + p, f"{c:032x}{p:032x}"),
            c,
            p,
            ShardCount(250, 6),
        )
        for c, p in places
    ]
    text = shards_html(rows)
    assert len(rows) == 7520 and "7,520 shards are too many" in text and "All 7,520 rows" in text
    assert text.count("<tr>") < 16 + 3 * (OUTLIERS + 2) and len(text) < 40_000
    assert len(shards_csv(rows).splitlines()) == 7521
    assert len(re.findall(r"pass-\d\d/\d{6}\.tar", shards_html(rows[:MOST_ROWS]))) == MOST_ROWS, "a row for each"
    assert "<details" in shards_html(rows[:MOST_ROWS]) and "<details" not in shards_html(rows[:UNFOLDED])


def test_the_set_stays_as_it_is(shard_set: Path, tmp_path: Path) -> None:
    before = digests(shard_set)
    for inside in (shard_set, shard_set / "page", shard_set / "pass-00" / "x"):
        refused = invoke(shard_set, "--page", inside)
        assert refused.exit_code == 1 and "lies inside the set" in refused.output and "--page" in refused.output
    both = invoke(shard_set, "--page", tmp_path / "a", "--out", tmp_path / "b.png")
    assert both.exit_code == 1 and "not both" in both.output
    assert digests(shard_set) == before and not list(tmp_path.iterdir())


def test_a_set_under_way_has_a_page_and_a_damaged_sample_a_line(tmp_path: Path) -> None:
    part = write_set(tmp_path / "part", landed=1)
    done = invoke(part, "--page", tmp_path / "page")
    text = (tmp_path / "page" / "index.html").read_text()
    assert done.exit_code == 0 and "not complete: 2 of 4 shards" in text
    data = ShardSet(part, allow_partial=True)
    shard = part / data.shard_of(0)
    offset = data.members(0)[0].offset
    whole = bytearray(shard.read_bytes())
    whole[offset + 5] ^= 1
    shard.write_bytes(whole)
    write_set_page(data, [0, 1], tmp_path / "damaged")
    text = (tmp_path / "damaged" / "index.html").read_text()
    assert "000000-00-0000.jpg in pass-00/000000.tar is damaged" in text and data.keys[1] in text


def test_a_set_without_a_sample_has_a_page(tmp_path: Path) -> None:
    none = write_set(tmp_path / "none", landed=0)
    done = invoke(none, "--page", tmp_path / "page")
    assert done.exit_code == 0, done.output
    assert "There is no sample" in (tmp_path / "page" / "index.html").read_text()
    named = invoke(none, "--page", tmp_path / "page", "--key", "000000-00-0000")
    assert named.exit_code == 1 and "the set holds none" in named.output


@pytest.mark.parametrize(
    "note", [{"frame": 1, "time_s": 0.1}, [1], {"frame": 1, "time_s": 0.1, "neighbours": {"m2": 3}}]
)
def test_a_sample_whose_json_is_odd_is_a_line(
    shard_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, note: object
) -> None:
    """Its digest fits: whoever wrote it was mistaken, or meant harm."""
    whole = ShardSet.json
    monkeypatch.setattr(ShardSet, "json", lambda data, i: note if i == 0 else whole(data, i))
    text = write_set_page(ShardSet(shard_set), [0, 1], tmp_path).read_text()
    assert "000000-00-0000 is not as the format has it" in text and text.count("pass 0; rim of the wheel") == 1


def test_a_set_in_a_bucket_has_the_same_page(
    shard_set: Path, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bucket_at(tmp_path / "bucket", monkeypatch) as store:
        shutil.copytree(shard_set, store.root / "set")
        before = digests(store.root)
        done = invoke("s3://bucket/set", "--page", tmp_path / "page", "--samples", "3")
        assert done.exit_code == 0 and digests(store.root) == before, done.output
    here, there = ((folder / "index.html").read_text() for folder in (page, tmp_path / "page"))
    assert there.replace("s3://bucket/set", "mine &amp; &lt;yours&gt;") == here
    assert (tmp_path / "page" / "shards.csv").read_text() == (page / "shards.csv").read_text()


def test_random_samples_depend_on_the_seed_alone(shard_set: Path) -> None:
    data = ShardSet(shard_set)
    assert random_samples(data, 3, 0) == random_samples(data, 3, 0) != random_samples(data, 3, 1)
    assert random_samples(data, 100, 0) == list(range(len(data)))


def test_a_name_that_is_markup_stays_text(shard_set: Path, tmp_path: Path) -> None:
    data = ShardSet(shard_set)
    data.manifest = replace(data.manifest, settings=replace(data.manifest.settings, dataset="<img src=http://x>"))
    text = write_set_page(data, [0], tmp_path).read_text()
    assert "&lt;img src=http://x&gt;" in text and "<img src=http" not in text


@needs_chromium
def test_the_page_opens_on_a_phone(page: Path) -> None:
    found = looked_at(page / "index.html")
    assert found["width"] <= PHONE_PX and found["left"] >= 0 and found["right"] <= PHONE_PX
    assert found["seen"] == found["pictures"] == 1 + 3 * (1 + 4 + 4), (
        "the wheel; an anchor, its flows and its neighbours"
    )
    assert found["narrowest"] >= 120 and found["outside"] == 0

"""What finalising costs: reads are counted, and the bytes are those of the plain way of writing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards import growing_index, schema
from shards.finalize import finalize
from shards.reader import ShardSet
from shards.records import read_record, read_videos
from shards.verify import verify
from tests.shards.small_set import CHUNKS, PASSES, SETTINGS, write_set

PLAN = [
    {"video": f"video-{c}-{i}", "path": f"video-{c}-{i}.mp4", "chunk": c, "position": i}
    for c in range(CHUNKS)
    for i in range(3)
]


def test_each_record_is_read_once_and_none_of_a_set_that_has_not_changed(shard_set: Path, reads: list[Path]) -> None:
    (shard_set / schema.MANIFEST).unlink()
    made = finalize(shard_set, SETTINGS, CHUNKS, PASSES, PLAN)
    assert len(reads) == len(set(reads)) == CHUNKS * PASSES
    content = (shard_set / schema.MANIFEST).read_bytes()
    assert finalize(shard_set, SETTINGS, CHUNKS, PASSES, PLAN) == made and len(reads) == CHUNKS * PASSES
    assert (shard_set / schema.MANIFEST).read_bytes() == content


@pytest.mark.parametrize("what", ["index", "videos", "record", "path", "manifest"])
def test_whatever_has_changed_is_made_anew(shard_set: Path, reads: list[Path], what: str) -> None:
    before = (shard_set / schema.MANIFEST).read_bytes()
    plan = PLAN
    if what in ("index", "videos"):
        (shard_set / f"{what}.parquet").write_bytes(b"damaged")
    elif what == "manifest":
        (shard_set / schema.MANIFEST).write_bytes(before[:-9])
    elif what == "record":
        record = shard_set / schema.record_path(0, 0)
        record.write_bytes(record.read_bytes())
    else:
        plan = [{**row, "path": f"moved/{row['path']}"} for row in PLAN]
    finalize(shard_set, SETTINGS, CHUNKS, PASSES, plan)
    assert len(reads) == CHUNKS * PASSES and verify(shard_set, deep=True) == []
    assert ((shard_set / schema.MANIFEST).read_bytes() == before) == (what != "path")


@pytest.mark.parametrize("group", [1, 3, 4, 8, 1 << 20])
def test_row_groups_are_those_of_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    monkeypatch.setattr(growing_index, "GROUP_ROWS", group)
    monkeypatch.setattr(growing_index, "_PACKED_TABLES", 2)
    root = write_set(tmp_path / "set")
    places = [(chunk, pass_index) for pass_index in range(PASSES) for chunk in range(CHUNKS)]
    tables = [pq.read_table(root / schema.record_path(*place)) for place in places]
    whole = pa.concat_tables(tables).replace_schema_metadata(None)
    pq.write_table(whole, tmp_path / "plain.parquet", row_group_size=group)
    assert (root / schema.INDEX).read_bytes() == (tmp_path / "plain.parquet").read_bytes()
    assert pq.ParquetFile(root / schema.INDEX).num_row_groups == -(-8 // group)


def test_what_became_of_videos_is_kept_once_per_chunk(shard_set: Path) -> None:
    assert sorted(path.name for path in (shard_set / "records" / "videos").iterdir()) == ["000000.json", "000001.json"]
    assert [row["video"] for row in read_videos(shard_set, 1)] == ["video-1-0", "video-1-1", "video-1-2"]
    for path in (shard_set / "records").glob("pass-*/*.parquet"):
        assert read_record(path)[1].keys() == {"shard"}


def test_sets_whose_records_repeat_the_videos_are_continued(shard_set: Path) -> None:
    """As every record did before."""
    before = {name: (shard_set / name).read_bytes() for name in (schema.MANIFEST, schema.INDEX, schema.VIDEOS)}
    for chunk in range(CHUNKS):
        rows = read_videos(shard_set, chunk)
        (shard_set / "records" / "videos" / f"{chunk:06d}.json").unlink()
        for pass_index in range(PASSES):
            path = shard_set / schema.record_path(chunk, pass_index)
            table, note = read_record(path)
            pq.write_table(table.replace_schema_metadata({"flowfeat": json.dumps({**note, "videos": rows})}), path)
    finalize(shard_set, SETTINGS, CHUNKS, PASSES, PLAN)
    assert before == {name: (shard_set / name).read_bytes() for name in before}


def test_an_empty_set_has_an_empty_index(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", landed=0)
    assert len(ShardSet(root, allow_partial=True)) == 0
    digest = hashlib.sha256((root / schema.INDEX).read_bytes()).hexdigest()
    pq.write_table(schema.index_schema(4).empty_table(), tmp_path / "plain.parquet")
    assert digest == hashlib.sha256((tmp_path / "plain.parquet").read_bytes()).hexdigest()

"""A set that grows: what has landed since the last manifest is added to it, and a set that is whole has the bytes of one made at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shards import growing_index, records, schema
from shards.finalize import finalize
from shards.reader import ShardSet
from shards.schema import Manifest
from shards.verify import verify
from shards.writer import ChunkWriter
from tests.shards.small_set import SETTINGS, commit_chunk, encoded, write_set

CHUNKS, LANDED, PASSES = 12, 9, 2
PLAN = [
    {"video": f"video-{c}-{i}", "path": f"video-{c}-{i}.mp4", "chunk": c, "position": i}
    for c in range(CHUNKS)
    for i in range(3)
]
FILES = (schema.MANIFEST, schema.INDEX, schema.VIDEOS)


@pytest.fixture
def growing(tmp_path: Path) -> Path:
    """Nine of twelve chunks."""
    return write_set(tmp_path / "set", CHUNKS, PASSES, LANDED)


def land(root: Path, chunk: int, passes: int = PASSES, first: int = 0) -> Manifest:
    commit_chunk(root, SETTINGS, chunk, range(first, passes))
    return finalize(root, SETTINGS, CHUNKS, passes, PLAN)


def rebuilt(root: Path, passes: int = PASSES) -> Manifest:
    """What merging all records gives."""
    (root / schema.MANIFEST).unlink()
    return finalize(root, SETTINGS, CHUNKS, passes, PLAN)


def rows(root: Path) -> list[dict[str, object]]:
    found = pq.read_table(root / schema.INDEX, use_threads=False).to_pylist()
    return sorted(found, key=lambda row: (row["pass"], row["key"]))


def test_a_chunk_that_lands_is_read_and_nothing_else(growing: Path, reads: list[Path]) -> None:
    made = land(growing, LANDED)
    assert reads == [growing / schema.record_path(LANDED, p) for p in range(PASSES)]
    assert not made.complete and len(made.shards) == (LANDED + 1) * PASSES
    [problem] = verify(growing, deep=True)
    assert "20 of 24 shards" in problem.what
    data = ShardSet(growing, allow_partial=True)
    assert data.keys[-1] == schema.sample_key(LANDED, PASSES - 1, 1) and len(data) == 2 * len(made.shards)
    assert data.read(len(data) - 1, 2).key == data.keys[-1]


def test_what_has_been_added_says_the_same_as_merging_all_records(growing: Path) -> None:
    made, added = land(growing, LANDED), rows(growing)
    videos = (growing / schema.VIDEOS).read_bytes()
    whole = rebuilt(growing)
    assert added == rows(growing) and videos == (growing / schema.VIDEOS).read_bytes()
    assert (made.shards, made.counts, made.files[schema.VIDEOS]) == (
        whole.shards,
        whole.counts,
        whole.files[schema.VIDEOS],
    )
    assert made.files[schema.INDEX]["rows"] == whole.files[schema.INDEX]["rows"]


def test_when_the_last_chunk_has_landed_the_bytes_are_those_of_one_run(
    growing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing_index, "GROUP_ROWS", 7)
    for chunk in range(LANDED, CHUNKS):
        assert land(growing, chunk).complete == (chunk == CHUNKS - 1)
    once = write_set(tmp_path / "once", CHUNKS, PASSES)
    assert [(growing / name).read_bytes() for name in FILES] == [(once / name).read_bytes() for name in FILES]
    assert verify(growing, deep=True) == []


def test_an_index_is_copied_and_hashed_piece_by_piece(
    growing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_set(tmp_path / "other", CHUNKS, PASSES, LANDED)
    at_once = land(other, LANDED)
    monkeypatch.setattr(growing_index, "_PIECE_BYTES", 7)
    growing_index._written.clear()
    assert land(growing, LANDED) == at_once
    assert (growing / schema.INDEX).read_bytes() == (other / schema.INDEX).read_bytes()


def test_many_new_chunks_are_merged_with_all_others(growing: Path, reads: list[Path]) -> None:
    """So that rows in the order of landing stay a small part of the index."""
    for chunk in (LANDED, LANDED + 1):
        commit_chunk(growing, SETTINGS, chunk, range(PASSES))
    commit_chunk(growing, SETTINGS, LANDED + 2, [0])
    finalize(growing, SETTINGS, CHUNKS, PASSES, PLAN)
    assert len(reads) == (LANDED + 2) * PASSES + 1


@pytest.mark.parametrize("what", ["index", "videos", "record", "path", "manifest", "gone"])
def test_nothing_is_added_to_what_has_changed(growing: Path, reads: list[Path], what: str) -> None:
    if what in ("index", "videos"):
        (growing / f"{what}.parquet").write_bytes((growing / f"{what}.parquet").read_bytes()[:-1] + b"!")
    elif what == "manifest":
        (growing / schema.MANIFEST).write_bytes(b"{}")
    elif what == "record":
        record = growing / schema.record_path(3, 1)
        record.write_bytes(record.read_bytes())
    elif what == "gone":
        (growing / schema.shard_path(3, 1)).unlink()
    plan = [{**row, "path": f"moved/{row['path']}"} for row in PLAN] if what == "path" else PLAN
    commit_chunk(growing, SETTINGS, LANDED, range(PASSES))
    made = finalize(growing, SETTINGS, CHUNKS, PASSES, plan)
    assert len(reads) == len(made.shards) == (LANDED + 1) * PASSES - (what == "gone")
    assert len(verify(growing, deep=True)) == 1


def test_more_passes_of_a_chunk_count_with_its_earlier_ones(growing: Path, reads: list[Path]) -> None:
    made = land(growing, 0, PASSES + 1, first=PASSES)
    assert reads == [growing / schema.record_path(0, PASSES)] and made.passes == PASSES + 1
    table = pq.read_table(growing / schema.VIDEOS, use_threads=False)
    assert table.column("anchors").to_pylist()[:6] == [3, 3, 0, 2, 2, 0]
    added = made.counts
    assert rebuilt(growing, PASSES + 1).counts == added and len(verify(growing, deep=True)) == 1


def test_a_video_that_is_tried_again_has_its_latest_place(growing: Path, reads: list[Path]) -> None:
    """It was rejected in the first chunk, and is taken in one that lands later."""
    plan = [*PLAN, {**PLAN[2], "chunk": CHUNKS, "position": 0}]
    name = str(PLAN[2]["video"])
    writer = ChunkWriter(growing, SETTINGS, CHUNKS, [0])
    writer.add(0, 0, replace(encoded(CHUNKS, 0, 0), video=name))
    writer.commit([{"video": name, "status": "ok", "reason": "", "detail": ""}])
    made = finalize(growing, SETTINGS, CHUNKS + 1, PASSES, plan)
    videos = (growing / schema.VIDEOS).read_bytes()
    assert len(reads) == 1 and made.counts["rejected"] == {"corrupt": LANDED - 1}
    last = pq.read_table(growing / schema.VIDEOS, use_threads=False).to_pylist()[-1]
    assert (last["video"], last["chunk"], last["status"], last["anchors"]) == (name, CHUNKS, "ok", 1)

    commit_chunk(growing, SETTINGS, LANDED, range(PASSES))  # the next one finds the table as it is now
    added = finalize(growing, SETTINGS, CHUNKS + 1, PASSES, plan)
    assert len(reads) == 1 + PASSES and videos != (growing / schema.VIDEOS).read_bytes()
    (growing / schema.MANIFEST).unlink()
    assert finalize(growing, SETTINGS, CHUNKS + 1, PASSES, plan).counts == added.counts
    assert len(verify(growing, deep=True)) == 1


def test_a_commit_does_not_look_at_the_records_of_others(growing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are thousands."""

    def listed(root: Path) -> set[tuple[int, int]]:
        raise AssertionError("all records were listed")

    monkeypatch.setattr(records, "recorded", listed)
    commit_chunk(growing, SETTINGS, LANDED, range(PASSES))


@pytest.mark.parametrize("noted", [True, False])
def test_anchors_that_cuts_took_are_counted_as_chunks_land(tmp_path: Path, reads: list[Path], noted: bool) -> None:
    settings = replace(SETTINGS, cut_detector="content")
    for chunk in range(LANDED + 1):
        commit_chunk(tmp_path, settings, chunk, range(PASSES))
        path = tmp_path / schema.RECORDS / "videos" / f"{chunk:06d}.json"
        rows = json.loads(path.read_text())
        told = [{**row, "across_cuts": chunk} if noted or chunk < LANDED else row for row in rows]
        path.write_text(json.dumps(told))
        if chunk == LANDED - 1:
            before = finalize(tmp_path, settings, CHUNKS, PASSES, PLAN)
            assert before.counts["across_cuts"] == 2 * sum(range(LANDED)), "two videos of each chunk were taken"
            reads.clear()
    made = finalize(tmp_path, settings, CHUNKS, PASSES, PLAN)
    assert len(reads) == PASSES
    assert made.counts.get("across_cuts") == (2 * sum(range(LANDED + 1)) if noted else None)
    assert "across_cuts" not in finalize(write_set(tmp_path / "plain", 1, 1), SETTINGS, 1, 1, PLAN[:3]).counts


@pytest.mark.parametrize("landed", [0, 1, LANDED])
def test_a_manifest_is_indented_json(tmp_path: Path, landed: int) -> None:
    text = (write_set(tmp_path / "set", CHUNKS, 1, landed) / schema.MANIFEST).read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"
    assert len(json.loads(text)["shards"]) == landed

"""The index of a set that has grown is put in order from itself: of records only new ones are read, and whatever is odd is merged anew."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards import finalize as finalizing
from shards import growing_index, index_shards, schema
from shards.finalize import finalize
from shards.index_shards import rows_by_shard
from shards.records import read_record, videos_path
from shards.schema import Manifest, ShardSetError, read_manifest
from shards.verify import verify
from tests.shards.small_set import SETTINGS, commit_chunk, optional_of, write_set

CHUNKS, PASSES = 6, 2
LAST = CHUNKS - 1
PLAN = [
    {"video": f"video-{c}-{i}", "path": f"video-{c}-{i}.mp4", "chunk": c, "position": i}
    for c in range(CHUNKS)
    for i in range(3)
]
FILES = (schema.MANIFEST, schema.INDEX, schema.VIDEOS)


def made(root: Path, passes: int = PASSES) -> Manifest:
    return finalize(root, SETTINGS, CHUNKS, passes, PLAN)


def content(root: Path) -> list[bytes]:
    return [(root / name).read_bytes() for name in FILES]


@pytest.fixture
def grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five of six chunks, taken in one by one in the order 3, 4, 1, 0, 2; the sixth has landed since the manifest."""
    monkeypatch.setattr(finalizing, "REBUILD_SHARE", 1)
    root = tmp_path / "set"
    (root / schema.RECORDS).mkdir(parents=True)
    (root / schema.PLAN).write_text("{}")
    for chunk in (3, 4, 1, 0, 2):
        commit_chunk(root, SETTINGS, chunk, range(PASSES))
        made(root)
    shards = pq.read_table(root / schema.INDEX, use_threads=False).column("shard").unique().to_pylist()
    assert shards != sorted(shards), "the first two of five chunks are in order"
    commit_chunk(root, SETTINGS, LAST, range(PASSES))
    return root


@pytest.fixture
def once(tmp_path: Path) -> list[bytes]:
    """The files of a set that was made at once."""
    return content(write_set(tmp_path / "once", CHUNKS, PASSES))


@pytest.mark.parametrize(
    ("group", "batch", "together"), [(1 << 20, 1 << 13, 64), (7, 3, PASSES), (1, 1, 1), (5, 1 << 13, 64)]
)
def test_the_last_chunk_is_all_that_is_read(
    grown: Path,
    tmp_path: Path,
    reads: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    group: int,
    batch: int,
    together: int,
) -> None:
    monkeypatch.setattr(growing_index, "_PACKED_TABLES", together)
    monkeypatch.setattr(growing_index, "GROUP_ROWS", group)
    monkeypatch.setattr(index_shards, "_BATCH_ROWS", batch)
    assert made(grown).complete
    assert reads == [grown / schema.record_path(LAST, p) for p in range(PASSES)]
    assert content(grown) == content(write_set(tmp_path / "once", CHUNKS, PASSES)) and verify(grown, deep=True) == []
    assert not list(grown.glob(".index*"))


@pytest.mark.parametrize("what", ["index", "no index", "record", "notes", "samples", "two places", "rows"])
def test_whatever_is_odd_is_merged_from_all_records(
    grown: Path, once: list[bytes], reads: list[Path], what: str
) -> None:
    index, known = grown / schema.INDEX, read_manifest(grown)
    if what == "index":
        index.write_bytes(index.read_bytes()[:-1] + b"!")
    elif what == "no index":
        index.unlink()
    elif what == "record":
        record = grown / schema.record_path(0, 0)
        record.write_bytes(record.read_bytes())
    elif what == "notes":
        os.utime(videos_path(grown, 0))
    elif what == "samples":
        shards = [replace(info, samples=info.samples + (n == 0)) for n, info in enumerate(known.shards)]
        (grown / schema.MANIFEST).write_bytes(replace(known, shards=shards).to_bytes())
    else:
        table = pq.read_table(index, use_threads=False)
        if what == "two places":
            table = pa.concat_tables([table.slice(1), table.slice(0, 1)])
        else:
            table = table.slice(2)
        pq.write_table(table, index)
        told = {"bytes": index.stat().st_size, "sha256": hashlib.sha256(index.read_bytes()).hexdigest()}
        files = {**known.files, schema.INDEX: {**told, "rows": len(table)}}
        (grown / schema.MANIFEST).write_bytes(replace(known, files=files).to_bytes())
    assert made(grown).complete
    assert len(reads) >= CHUNKS * PASSES and len(set(reads)) == CHUNKS * PASSES
    assert content(grown) == once


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_without_a_scratch_file_all_records_are_read(
    grown: Path, once: list[bytes], reads: list[Path], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(**asked: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert made(grown).complete and content(grown) == once
    assert len(reads) == CHUNKS * PASSES


def test_more_passes_of_a_whole_set(tmp_path: Path, reads: list[Path]) -> None:
    root, more = write_set(tmp_path / "set", CHUNKS, PASSES), PASSES + 1
    for chunk in range(CHUNKS):
        commit_chunk(root, SETTINGS, chunk, [PASSES])
    reads.clear()
    assert made(root, more).complete and len(reads) == CHUNKS
    assert content(root) == content(write_set(tmp_path / "once", CHUNKS, more))


@pytest.mark.parametrize("more", [False, True])
def test_anchors_that_cuts_took(tmp_path: Path, reads: list[Path], more: bool) -> None:
    """Of more passes of a chunk they are counted anew, for those of each video are in its notes alone."""
    settings = replace(SETTINGS, cut_detector="content")
    for chunk in range(CHUNKS):
        commit_chunk(tmp_path, settings, chunk, range(PASSES - (chunk == LAST and more)))
        path = videos_path(tmp_path, chunk)
        path.write_text(json.dumps([{**row, "across_cuts": chunk} for row in json.loads(path.read_text())]))
        if chunk == LAST - 1 or (more and chunk == LAST):
            finalize(tmp_path, settings, CHUNKS, PASSES, PLAN)
            reads.clear()
    if more:
        commit_chunk(tmp_path, settings, LAST, [PASSES - 1])
    added = finalize(tmp_path, settings, CHUNKS, PASSES, PLAN)
    assert added.complete and len(reads) == (CHUNKS * PASSES if more else PASSES)
    assert added.counts["across_cuts"] == 2 * sum(range(CHUNKS))
    (tmp_path / schema.MANIFEST).unlink()
    assert finalize(tmp_path, settings, CHUNKS, PASSES, PLAN) == added


@pytest.mark.parametrize("batch", [1, 3, 1 << 13])
def test_the_rows_of_a_shard_are_those_of_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(index_shards, "_BATCH_ROWS", batch)
    root = write_set(tmp_path / "set", 3, PASSES, optional=optional_of)
    with rows_by_shard(root / schema.INDEX, read_manifest(root).files[schema.INDEX]["sha256"]) as rows:
        for chunk, pass_index in [(2, 1), (0, 0), (1, 1), (2, 0), (0, 1), (1, 0), (0, 0)]:
            record = read_record(root / schema.record_path(chunk, pass_index))[0].replace_schema_metadata(None)
            found = rows(schema.shard_path(chunk, pass_index))
            assert found.equals(record) and found.schema.equals(record.schema, check_metadata=True)
        assert rows(schema.shard_path(7, 0)).num_rows == 0
    with (
        pytest.raises(ShardSetError, match=r"index\.parquet does not match the manifest"),
        rows_by_shard(root / schema.INDEX, "0" * 64),
    ):
        raise AssertionError("the index has another digest")

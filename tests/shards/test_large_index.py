"""What opening a set does row by row: no name is looked up twice, no column is read unasked, keys of any length are checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from shards import schema
from shards.finalize import finalize
from shards.index_rows import IndexRows
from shards.reader import ShardSet
from shards.schema import ShardSetError
from shards.verify import verify
from tests.shards.small_set import PASSES, SETTINGS, commit_chunk, write_set


class Counting(dict[str, int]):
    asked = 0

    def setdefault(self, key: str, default: int = -1) -> int:
        Counting.asked += 1
        return super().setdefault(key, default)


def test_a_video_is_looked_up_once_however_many_passes_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_set(tmp_path / "set", chunks=3, passes=4)
    made: Callable[..., None] = IndexRows.__init__

    def counting(self: IndexRows, *given: Any) -> None:
        made(self, *given)
        self._code_of = Counting()

    monkeypatch.setattr("shards.index.BATCH_ROWS", 6)  # the samples of one pass
    monkeypatch.setattr(IndexRows, "__init__", counting)
    Counting.asked = 0
    data = ShardSet(root)
    assert Counting.asked == 6 and len(data) == 24
    table = pq.read_table(root / schema.INDEX, use_threads=False)
    assert list(data.video) == table.column("video").to_pylist() and list(data.keys) == table.column("key").to_pylist()


def test_how_much_flows_vary_is_read_when_it_is_asked_for(shard_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns: list[str] = []

    class Watched(pq.ParquetFile):
        def iter_batches(self, *given: Any, **options: Any) -> Any:
            columns.extend(options["columns"])
            return super().iter_batches(*given, **options)

    monkeypatch.setattr("shards.index.pq.ParquetFile", Watched)
    data, rare = ShardSet(shard_set), {"quantum_exponent", "std_dx_px", "std_dy_px"}
    assert columns and not rare & set(columns)
    first = data.std_px
    assert rare <= set(columns) and len(columns) == len(set(columns))
    assert data.std_px is first and data.quantum_exponent.shape == first.shape[:2]
    table = pq.read_table(shard_set / schema.INDEX, use_threads=False)
    stored = np.array([[value is not None for value in row] for row in table.column("flow_size").to_pylist()])
    wanted = np.array(table.column("std_dy_px").to_pylist(), np.float32)
    assert (first[..., 1] == wanted)[stored].all()


def test_statistics_of_another_index_are_refused(shard_set: Path) -> None:
    data = ShardSet(shard_set)
    (shard_set / schema.INDEX).write_bytes(b"another")
    with pytest.raises(ShardSetError, match="does not match the manifest"):
        data.std_px.any()


@pytest.mark.parametrize("far", [999_999, 1_000_000])
def test_keys_of_chunks_beyond_a_million_are_longer(tmp_path: Path, far: int) -> None:
    root = tmp_path / "set"
    plan = [
        {"video": f"video-{c}-{i}", "path": f"{c}-{i}.mp4", "chunk": c, "position": i}
        for c in (0, far)
        for i in range(3)
    ]
    for chunk in (0, far):
        commit_chunk(root, SETTINGS, chunk, range(PASSES))
    finalize(root, SETTINGS, far + 1, PASSES, plan)
    data = ShardSet(root, allow_partial=True)
    assert list(data.keys) == [schema.sample_key(c, p, i) for p in range(PASSES) for c in (0, far) for i in range(2)]
    assert data.read(3, 3).key == data.keys[3]


def test_verification_never_holds_a_whole_index(shard_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is 400 bytes as Arrow has it."""
    largest: list[int] = []

    class Watched(pq.ParquetFile):
        def read(self, *given: Any, **options: Any) -> Any:
            found = super().read(*given, **options)
            assert "key" not in found.column_names, "the index was read as one table"
            return found

        def iter_batches(self, *given: Any, **options: Any) -> Any:
            for batch in super().iter_batches(*given, **options):
                largest.append(len(batch))
                yield batch

    monkeypatch.setattr("shards.index.pq.ParquetFile", Watched)
    monkeypatch.setattr("shards.index.BATCH_ROWS", 3)
    assert verify(shard_set, deep=True) == []
    assert max(largest) == 3

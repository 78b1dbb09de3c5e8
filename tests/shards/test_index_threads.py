"""Parquet tables of a set are read by the calling thread alone: threads that outlive a read abort the interpreter's end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from shards.index import read_table
from shards.reader import ShardSet, read_manifest
from tests.trainer.training_set import write_training_set


def test_arrow_gets_no_thread_of_its_own_to_read_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_training_set(tmp_path / "set", samples=3)
    asked: list[tuple[str, Any]] = []

    class Watched(pq.ParquetFile):
        def __init__(self, source: Any, **options: Any) -> None:
            asked.append(("pre_buffer", options.get("pre_buffer", True)))
            super().__init__(source, **options)

        def read(self, *given: Any, **options: Any) -> Any:
            asked.append(("use_threads", options.get("use_threads", True)))
            return super().read(*given, **options)

        def iter_batches(self, *given: Any, **options: Any) -> Any:
            asked.append(("use_threads", options.get("use_threads", True)))
            return super().iter_batches(*given, **options)

    monkeypatch.setattr("shards.index.pq.ParquetFile", Watched)
    assert len(ShardSet(root)) == 3
    assert read_table(root, "videos.parquet", read_manifest(root)).num_rows > 0
    assert {name for name, _ in asked} == {"pre_buffer", "use_threads"}
    assert not any(value for _, value in asked), asked

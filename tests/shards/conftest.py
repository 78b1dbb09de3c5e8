"""Fixtures that several shard tests share; the set itself is made in small_set."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from shards import finalize as finalizing
from shards.records import read_record
from tests.shards.small_set import write_set


@pytest.fixture
def shard_set(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Records read, in order."""
    seen: list[Path] = []

    def note(path: Path) -> tuple[pa.Table, dict[str, object]]:
        seen.append(path)
        return read_record(path)

    monkeypatch.setattr(finalizing, "read_record", note)
    return seen

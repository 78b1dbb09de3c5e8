"""Fixture of the shard tests; the set itself is made in small_set."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shards.small_set import write_set


@pytest.fixture
def shard_set(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")

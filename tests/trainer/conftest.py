"""A shard set that the tests of one module share; what they write goes elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.training_set import write_training_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_set(tmp_path_factory.mktemp("data") / "set")

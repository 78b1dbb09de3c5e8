"""A shard set that the tests of one module share, what they write goes elsewhere; a file server for published weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.common.download_server import Server, serving
from tests.trainer.training_set import write_training_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_set(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running

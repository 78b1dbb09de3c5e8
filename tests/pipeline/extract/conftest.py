"""Fixtures that several extraction tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.video.decoder import Decoder
from tests.pipeline.extract.small_extraction import digests, request, run
from tests.shards.bucket_store import BucketStore, bucket_at


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    """A decoding process that is started once."""
    with Decoder() as running:
        yield running


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """Where fake estimators leave word of each other."""
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketStore]:
    with bucket_at(tmp_path / "bucket", monkeypatch) as running:
        yield running


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of a local set that nothing disturbed, of the module's own videos."""
    out = tmp_path_factory.mktemp("sets") / "whole"
    run(request(videos, out))
    return digests(out)

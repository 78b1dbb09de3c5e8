"""More passes than may have their shards open at once: made in blocks, to the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.extract import room, stages
from pipeline.extract.batches import MOST_PASSES
from shards.reader import ShardSet
from shards.schema import Settings
from shards.writer import ChunkWriter
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import digests, make_videos, request, run


def test_only_so_many_shards_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos, passes = make_videos(tmp_path / "videos", 2), MOST_PASSES + 2
    opened: list[int] = []

    class Counting(ChunkWriter):
        def __init__(self, root: Path, settings: Settings, chunk: int, passes: Sequence[int]) -> None:
            opened.append(len(passes))
            super().__init__(root, settings, chunk, passes)

    with monkeypatch.context() as patched:
        patched.setattr(stages, "ChunkWriter", Counting)
        run_here(request(videos, tmp_path / "here", passes=passes))
    assert opened == [MOST_PASSES, 2]
    assert len(ShardSet(tmp_path / "here")) == 2 * passes

    # Less room than one block of passes needs: smaller blocks, two of each video's windows at a time.
    monkeypatch.setattr(room, "FRAMES_MOST_BYTES", 16 * (64 * 64 + 5 * 32 * 32) * 3)
    run(request(videos, tmp_path / "narrow", passes=passes))
    assert digests(tmp_path / "narrow") == digests(tmp_path / "here")

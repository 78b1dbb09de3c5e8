"""More passes than may have their shards open at once: made in blocks, to the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from common.progress import ProgressDisplay
from pipeline.extract import progress, room, stages
from pipeline.extract.batches import MOST_PASSES
from pipeline.extract.run import extract
from shards.reader import ShardSet
from shards.schema import Settings
from shards.writer import ChunkWriter
from tests.pipeline.extract.in_process import InProcessRunner, run_here
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


def test_what_is_done_is_counted_by_block_and_a_rejected_video_is_named_once(tmp_path: Path) -> None:
    """It had said 3/3 videos and no time left after the first block."""
    videos, passes = make_videos(tmp_path / "videos", 2), 2 * MOST_PASSES
    (videos / "broken.mp4").write_bytes(b"")
    stream = io.StringIO()
    with ProgressDisplay("", "videos", console=Console(file=stream, width=200), plain_every_s=0.0) as display:
        wanted = request(videos, tmp_path / "set", passes=passes, content={"chunk_videos": 3})
        extract(
            wanted,
            InProcessRunner(wanted.estimator),
            lambda event, tally: progress.happened(display, event, tally),
            lambda plan, tally: progress.planned(display, plan, tally),
        )
    said = stream.getvalue().splitlines()
    assert [line.split(":")[0] for line in said if "rejected broken" in line] == ["rejected broken"]
    shown = [line.split(" ")[0] for line in said if "/3 videos" in line]
    assert shown == ["0.5/3", "1/3", "1.5/3", "2/3", "2.5/3", *["3/3"] * 3], "six reports, the chunk, the index"
    assert "rejected 1 (empty_file 1)" in said[-2] and "writing the index of up to 192 samples" in said[-1]

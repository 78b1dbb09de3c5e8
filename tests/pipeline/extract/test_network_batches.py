"""A real network through the engine: its rounding depends on the size of a batch, the set does not depend on how it was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.extract.run import ExtractionRequest
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import digests, make_videos, request, run

torch = pytest.importorskip("torch")


def asked(videos: Path, out: Path, passes: int) -> ExtractionRequest:
    options = {"weights": "random:0", "extra": {"iterations": "2", "batch_pairs": "12"}}
    content = {"image_size": 136, "flow_size": 136, "chunk_videos": 5}
    return request(videos, out, flow="raft-small", passes=passes, options=options, content=content)


def test_a_network_gives_the_same_bytes_in_one_go_in_pieces_and_in_any_number_of_processes(tmp_path: Path) -> None:
    """Batches of three windows: 5 videos make one of 12 pairs and one of 8 per pass."""
    videos = make_videos(tmp_path / "videos", 5)
    (videos / "synth-00001.mp4").write_bytes(b"")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run_here(asked(videos, tmp_path / "once", 2))
    finally:
        torch.set_num_threads(threads)
    grown = tmp_path / "grown"
    run(asked(videos, grown, 1), workers=1)
    run(asked(videos, grown, 2), workers=2)
    assert digests(grown) == digests(tmp_path / "once")

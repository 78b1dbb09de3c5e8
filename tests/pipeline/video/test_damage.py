"""Damaged files: every one is accounted for, and no window is made of pictures that FFmpeg had to make up."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from bench.decoders import Library, Places
from bench.mutations import KINDS, checked, mutation, outcome, small_clips
from pipeline.video.complaints import Complaints
from pipeline.video.decoder import Decoder
from pipeline.video.pyav_frames import PyAVFrames
from pipeline.video.rejects import REJECT_REASONS, Reject, check_file
from tests.pipeline.video.asking import ask, file, reject, settings
from tests.pipeline.video.numbered_videos import write_video

COUNT = int(os.environ.get("FLOWFEAT_MUTATIONS", "12"))
"""Mutations of real clips in this suite; `bench/mutations.py` does 300."""


def marks(path: Path) -> list[bool] | None:
    """For each frame whether FFmpeg marks it as damaged; None where it gives up."""
    try:
        with av.open(str(path)) as container:
            return [frame.is_corrupt for frame in container.decode(video=0)]
    except av.error.FFmpegError:
        return None


def concealed(whole: Path) -> Iterator[Path]:
    """Damaged copies that decode to their end without an error, with made-up frames among theirs."""
    data = whole.read_bytes()
    for seed in range(10):
        damaged, draw = bytearray(data), random.Random(seed)
        for _ in range(4):
            damaged[draw.randrange(len(data) // 4, len(data) * 3 // 4)] ^= 1 << draw.randrange(8)
        path = whole.with_name(f"{seed}{whole.suffix}")
        path.write_bytes(damaged)
        if any(marks(path) or []):
            yield path


def test_a_video_whose_frame_size_changes_is_refused_by_name(decoder: Decoder, tmp_path: Path) -> None:
    """As a frame folder is: windows across the change would hold two scales, and finding cuts would end in a crash."""
    parts = [write_video(tmp_path / f"{side}.ts", 20, codec="mpeg2video", size=(side, 64)) for side in (96, 128)]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    refused = reject(decoder, file(both))
    assert refused.reason == "corrupt" and re.search(
        r"frame \d+ is 128x64 px, frames before it are 96x64", refused.detail
    )


@pytest.mark.parametrize(("codec", "extension"), [("mpeg4", "avi"), ("mpeg2video", "mkv")])
def test_no_window_is_made_of_made_up_pictures(decoder: Decoder, tmp_path: Path, codec: str, extension: str) -> None:
    whole = write_video(tmp_path / f"whole.{extension}", 60, codec=codec, options={"g": "12"})
    assert len(ask(decoder, file(whole), [0, 1])) == 2
    paths = list(concealed(whole))
    assert len(paths) >= 3
    for path in paths:
        refused = reject(decoder, file(path))
        assert refused.reason == "corrupt" and str(path) in refused.detail
        with pytest.raises(Reject, match=r"corrupt: .* is damaged or made up"):
            PyAVFrames(path, check_file(path))
    assert len(ask(decoder, file(whole), [0])) == 1, "what was said of one video is not held against the next"


def test_complaints_are_found_wherever_the_pieces_break(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w+b", buffering=0) as stream:
        monkeypatch.setattr("pipeline.video.complaints.STANDARD_ERROR", stream.fileno())
        stream.write(b"[h264 @ 0x1] concealing 99 DC, 99 AC, 99 MV errors in P frame\n")
        for piece in (1, 7, 1 << 20):
            monkeypatch.setattr("pipeline.video.complaints.PIECE_BYTES", piece)
            complaints = Complaints()
            stream.write(b"[swscaler @ 0x1] deprecated pixel format used\n")
            assert complaints.first() is None, "older words are of another video"
            stream.write(b"[hevc @ 0x1] Could not find ref with POC 12\n" * 3)
            assert complaints.first() == "[hevc @ 0x1] Could not find ref with POC 12"


def test_nothing_is_heard_where_nothing_can_be_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr("pipeline.video.complaints.STANDARD_ERROR", writing)
    assert Complaints().first() is None
    os.close(reading)
    os.close(writing)


def test_mutations_are_pure_functions_of_their_number(clip: Path) -> None:
    data = clip.read_bytes()
    for number in range(3 * len(KINDS)):
        one, again = mutation(number, [clip]), mutation(number, [clip])
        assert one == again and one.data != data, one.kind
    assert {mutation(number, [clip]).kind for number in range(len(KINDS))} == set(KINDS)


def test_mutated_clips_are_accounted_for(decoder: Decoder, shared_dir: Path, tmp_path: Path) -> None:
    """Windows or a reason, in time, by a parent that lives; windows only where FFmpeg marks no frame as damaged."""
    clips = small_clips(shared_dir / "data" / "videos", 420_000)
    assert len(clips) >= 10
    ended = []
    pyav = Library("pyav", Places({}, {}))
    for number in range(COUNT):
        found = mutation(number, clips)
        known = outcome(decoder, found, tmp_path, settings(image_size=64, flow_size=64), 60.0)
        assert known.ended == "windows" or known.ended in REJECT_REASONS
        assert known.ended != "timeout", (number, known.detail)
        if known.ended == "windows":
            path = tmp_path / f"{number:04d}{found.clip.suffix}"
            plain = pyav.read(found.clip, 60.0, sweep_only=True)
            assert checked(known, path, plain, pyav, 60.0).flagged == 0, (number, found.kind, found.clip)
        ended.append(known.ended)
    pyav.close()
    assert len(ended) == COUNT and len(set(ended)) > 1

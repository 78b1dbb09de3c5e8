"""Sets of videos with odd names: a manifest at the end, one row for each input, nothing that steers a terminal."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from common.printable import printable, printable_line
from pipeline.extract.plan import make_plan
from pipeline.video.datasets import list_videos
from shards import schema
from shards.schema import Settings
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import make_videos, request


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return next(make_videos(tmp_path_factory.mktemp("clips"), 1).rglob("*.mp4"))


def test_a_set_of_odd_names_gets_its_manifest(clip: Path, tmp_path: Path) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    try:
        shutil.copy(clip, root / os.fsdecode(b"caf\xe9.mp4"))
    except OSError:
        pytest.skip("this file system refuses such names")
    (root / os.fsdecode(b"broken\xe9\x1b[31m.mp4")).write_bytes(b"x")
    (root / "circle.mp4").symlink_to("circle.mp4")
    manifest = run_here(request(root, tmp_path / "set", passes=1))
    assert manifest.complete and manifest.counts["ok"] == 1 and manifest.counts["videos"] == 3
    rows = {row["video"]: row for row in pq.read_table(tmp_path / "set" / schema.VIDEOS).to_pylist()}
    assert rows["caf\\xe9"]["path"] == "caf\\xe9.mp4"
    assert rows["circle"]["reason"] == "unreadable"
    assert all("\x1b" not in row["detail"] for row in rows.values())
    assert run_here(request(root, tmp_path / "set", passes=2)).complete


def test_a_file_with_an_existing_stem_joins_the_set(clip: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "videos", tmp_path / "set"
    root.mkdir()
    shutil.copy(clip, root / "a.mp4")
    run_here(request(root, out, passes=1))
    shutil.copy(clip, root / "a.avi")
    assert [video.id for video in list_videos("folder", root)] == ["a.avi", "a.mp4"]
    manifest = run_here(request(root, out, passes=2))
    rows = pq.read_table(out / schema.VIDEOS).to_pylist()
    assert [(row["video"], row["path"]) for row in rows] == [("a", "a.mp4"), ("a.avi", "a.avi")]
    assert manifest.complete and manifest.counts["samples"] == 4


def test_a_plan_goes_past_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    (tmp_path / "a.mp4").write_bytes(b"x")
    plan = make_plan(
        tmp_path / "set", list_videos("folder", tmp_path), tmp_path, Settings("folder", {"name": "none"}), 1
    )
    assert [planned.path for planned in plan.videos] == ["a.mp4", "circle.mp4"]


def test_nothing_in_a_message_steers_a_terminal() -> None:
    assert printable_line("a\x1b[31m\r\nb\x9b") == "a\\x1b[31m\\r\\nb\\x9b"
    assert printable("two\n  lines\x07") == "two\n  lines\\x07"
    assert printable_line(os.fsdecode(b"caf\xe9 \xc3\xa9")) == "caf\\xe9 é" and printable_line("\ud800") == "\\ud800"

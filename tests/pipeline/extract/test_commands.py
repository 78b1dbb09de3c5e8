"""extract, verify, inspect and synth as a user meets them: what is said, where files go, which exit code."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from common import progress as common_progress
from pipeline.cli import main
from pipeline.extract.progress import describe
from pipeline.extract.runner import VideoReport
from pipeline.extract.tally import Tally
from shards.finalize import finalize
from shards.schema import Settings
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import digests, make_videos, request


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def shard_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("inspected")
    out = home / "sets" / "mine"
    run_here(request(make_videos(home / "videos", 2), out))
    return out


def test_extract_says_what_happens_and_names_rejected_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        common_progress.ProgressDisplay.__init__, "__kwdefaults__", {"console": None, "plain_every_s": 0.0}
    )
    videos = make_videos(tmp_path / "videos", 2)
    (videos / "[red]broken.mp4").write_bytes(b"")
    sizes = ["--image-size", "64", "--flow-size", "32"]
    done = invoke(
        "extract", "--dataset", "folder", "--root", videos, "--out", tmp_path / "set", "--workers", "1", *sizes
    )
    assert done.exit_code == 0, done.output
    assert "3 videos in 1 chunk, 8 passes: 1 chunk to do" in done.output
    assert "rejected [red]broken: empty_file" in done.output, "a file's name is not markup"
    assert "extract: 3/3 videos" in done.output and "1/1 chunks, rejected 1 (empty_file 1)" in done.output
    assert "2 of 3 videos, rejected: empty_file 1" in done.output


def test_the_progress_line_counts_rejects_by_reason_and_a_retried_video_once() -> None:
    tally = Tally(total=4, chunks=2, chunks_done=1)
    for video, reason in (("a", "corrupt"), ("b", "too_short"), ("c", "corrupt"), ("c", "corrupt")):
        tally.add(VideoReport(video, "rejected", reason, "", 0.0, {}))
    assert describe(tally) == "1/2 chunks, rejected 3 (corrupt 2, too_short 1)"
    assert describe(Tally(1, 1)) == "0/1 chunks"


def test_too_many_rejects_exit_3(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"")
    done = invoke(
        "extract", "--dataset", "folder", "--root", tmp_path / "videos", "--out", tmp_path / "set", "--workers", "1"
    )
    assert done.exit_code == 3 and "1 of 1 video was rejected; see videos.parquet" in done.output


def test_inspect_writes_beside_the_set_and_nowhere_else(
    shard_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = digests(shard_set)
    drawn = invoke("inspect", shard_set)
    sheet = shard_set.parent / "mine-contact-sheet.png"
    assert drawn.exit_code == 0 and f"contact sheet: {sheet}" in drawn.output
    assert Image.open(sheet).size[0] > 1000
    assert digests(shard_set) == before and not list(tmp_path.iterdir())
    assert sorted(p.name for p in shard_set.parent.iterdir()) == ["mine", "mine-contact-sheet.png"]


@pytest.mark.parametrize("where", [".", "./", "../mine"])
def test_inspect_of_the_working_directory_finds_the_sets_name(
    shard_set: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shard_set)
    drawn = invoke("inspect", where)
    assert drawn.exit_code == 0 and str(shard_set.parent / "mine-contact-sheet.png") in drawn.output


def test_a_contact_sheet_is_a_png_by_its_name_too(shard_set: Path, tmp_path: Path) -> None:
    refused = invoke("inspect", shard_set, "--out", tmp_path / "x.jpg")
    assert (
        refused.exit_code == 1
        and "x.jpg, and a contact sheet is a PNG; give a name that ends in .png" in refused.output
    )
    assert not list(tmp_path.iterdir()) and invoke("inspect", shard_set, "--out", tmp_path / "x.PNG").exit_code == 0


def test_inspect_never_writes_into_the_set(shard_set: Path, tmp_path: Path) -> None:
    before = digests(shard_set)
    (tmp_path / "link").symlink_to(shard_set)
    for inside in (shard_set / "sheet.png", tmp_path / "link" / "pass-00" / "sheet.png"):
        refused = invoke("inspect", shard_set, "--out", inside)
        assert refused.exit_code == 1 and "lies inside the set" in refused.output
    assert digests(shard_set) == before
    assert invoke("inspect", shard_set, "--out", tmp_path / "sheet.png").exit_code == 0
    assert (tmp_path / "sheet.png").is_file()


def test_inspect_names_an_unknown_key(shard_set: Path) -> None:
    refused = invoke("inspect", shard_set, "--key", "nobody")
    assert refused.exit_code == 1 and "no sample is called 'nobody'; the first is '000000-00-0000'" in refused.output


def test_a_set_without_samples_says_whether_it_is_finished(tmp_path: Path) -> None:
    """All rejected, and interrupted before anything has landed."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"")
    out = tmp_path / "set"
    run_here(request(tmp_path / "videos", out))
    assert "holds no samples: see videos.parquet for why" in invoke("inspect", out).output
    manifest = json.loads((out / "manifest.json").read_bytes())
    finalize(tmp_path / "begun", Settings.from_json(manifest["settings"]), 1, 1, [])
    drawn = invoke("inspect", tmp_path / "begun")
    assert drawn.exit_code == 1 and "holds no samples yet: run the extraction again" in drawn.output


def test_verify_counts_shards_and_exits_4_on_damage(
    shard_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        common_progress.ProgressDisplay.__init__, "__kwdefaults__", {"console": None, "plain_every_s": 0.0}
    )
    intact = invoke("verify", shard_set, "--deep")
    assert intact.exit_code == 0 and "verify: 2/2 shards" in intact.output and f"{shard_set}: intact" in intact.output
    shard = shard_set / "pass-01" / "000000.tar"
    whole = shard.read_bytes()
    try:
        shard.write_bytes(whole[:1000] + b"\xff" + whole[1001:])
        damaged = invoke("verify", shard_set, "--json")
    finally:
        shard.write_bytes(whole)
    assert damaged.exit_code == 4 and "pass-01/000000.tar" in json.dumps(json.loads(damaged.stdout))


def test_synth_counts_and_refuses_without_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        common_progress.ProgressDisplay.__init__, "__kwdefaults__", {"console": None, "plain_every_s": 0.0}
    )
    out = tmp_path / "made"
    for flag, value in (("--size", "97x128"), ("--frames", "0"), ("--seed", "-1"), ("--fps", "0"), ("--videos", "-1")):
        refused = invoke("synth", "--out", out, "--davis-sequences", "1", flag, value)
        assert refused.exit_code == 1 and not out.exists(), (flag, refused.output)
    made = invoke("synth", "--out", out, "--videos", "2", "--davis-sequences", "1", "--frames", "3", "--size", "64x96")
    assert made.exit_code == 0 and "3/3 videos, sequences and pictures" in made.output
    assert f"{out}: 2 videos, 1 sequences with masks" in made.output and len(os.listdir(out / "videos")) == 4


def test_a_mistyped_command_names_the_nearest() -> None:
    assert "did you mean extract" in invoke("extrct").output

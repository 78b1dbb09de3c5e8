"""Addresses on the command line: extract, plan, verify and inspect as a user meets them, and a run that is killed in the middle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.extract.places import Places
from pipeline.video.decoder import Decoder
from tests.module_graph import ROOT
from tests.pipeline.extract.remote_extraction import extract_to
from tests.pipeline.extract.small_extraction import digests, make_videos, request, run
from tests.shards.bucket_store import BucketStore
from tests.test_makefile import commands

SIZES = ("--image-size", "64", "--flow-size", "32", "--chunk-videos", "2", "--passes", "2", "--workers", "1")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"), 3)


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def asked(videos: str | Path, out: str, scratch: Path) -> list[str]:
    places = ("--dataset", "folder", "--root", str(videos), "--out", out, "--scratch", str(scratch))
    return [*places, *SIZES]


def test_a_run_that_is_killed_while_it_uploads_goes_on_at_once(
    videos: Path, store: BucketStore, tmp_path: Path
) -> None:
    reached, gate = threading.Event(), threading.Event()

    def wait_there(number: int, what: str) -> str:
        if what == "PUT set/records/pass-01/000000.parquet":
            reached.set()
            gate.wait(60)
            return "500"
        return ""

    store.wrong = wait_there
    command = [sys.executable, "-m", "pipeline", "extract", *asked(videos, "s3://bucket/set", tmp_path / "scratch")]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ}, stdout=subprocess.DEVNULL) as process:
        assert reached.wait(120)
        process.kill()
        process.wait()
        gate.set()
    store.wrong = lambda number, what: ""
    assert (store.root / "set" / ".lock").exists() and not (store.root / "set" / "manifest.json").exists()
    planned = invoke("plan", *asked(videos, "s3://bucket/set", tmp_path / "scratch"), "--sample", "1")
    assert planned.exit_code == 0 and "of 4 shards to make" in planned.output, planned.output
    assert "kept in s3://bucket/set/.log/forecast.json" in planned.output
    again = invoke("extract", *asked(videos, "s3://bucket/set", tmp_path / "scratch"))
    assert again.exit_code == 0, again.output
    assert "s3://bucket/set: 3 of 3 videos" in again.output and str(tmp_path) not in again.output
    assert "planned (95 % range)" in again.output, "what came is put beside the forecast that the bucket has kept"
    run(request(videos, tmp_path / "whole"))
    assert digests(store.root / "set") == digests(tmp_path / "whole")
    assert not any((tmp_path / "scratch").iterdir()), "what the killed run left is gone too"


def test_verify_and_inspect_take_addresses(
    videos: Path, store: BucketStore, tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    extract_to(videos, "s3://bucket/set", tmp_path / "scratch", decoder, passes=1)
    for address in ("s3://bucket/set", "s3://bucket/set/", f"file://{store.root}/set"):
        done = invoke("verify", address, "--deep")
        assert done.exit_code == 0 and "intact" in done.output, done.output
    shard = store.root / "set" / "pass-00" / "000001.tar"
    shard.write_bytes(shard.read_bytes()[:-1])
    done = invoke("verify", "s3://bucket/set")
    assert done.exit_code == 4 and "pass-00/000001.tar" in done.output
    done = invoke("verify", "s3://bucket/nothing")
    assert done.exit_code == 1 and "no shard set at s3://bucket/nothing" in done.output
    store.wrong = lambda number, what: "403"
    done = invoke("verify", "s3://bucket/set")
    assert done.exit_code == 1 and "refused" in done.output and len(done.output.splitlines()) == 1


def test_a_drawn_set_in_a_bucket_lies_beside_whoever_asked(
    videos: Path, store: BucketStore, tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    extract_to(videos, "s3://bucket/deep/set", tmp_path / "scratch", decoder, passes=1)
    done = invoke("inspect", "s3://bucket/deep/set")
    assert done.exit_code == 0 and "s3://bucket/deep/set: 3 of 3 videos" in done.output, done.output
    assert [path.name for path in tmp_path.glob("*.png")] == ["set-contact-sheet.png"]


def test_a_list_may_lie_at_an_address(videos: Path, store: BucketStore, tmp_path: Path) -> None:
    shutil.copytree(videos, store.root / "videos")
    (store.root / "lists").mkdir()
    (store.root / "lists" / "few.txt").write_text("synth-00002.mp4\nsynth-00000.mp4\n")
    places = ("--root", "s3://bucket/videos", "--out", "s3://bucket/set", "--scratch", tmp_path / "scratch")
    listed = ("--dataset", "list", "--list", "s3://bucket/lists/few.txt", *places, *SIZES)
    planned = invoke("plan", *listed, "--sample", "0")
    assert planned.exit_code == 0 and "2 videos" in planned.output, planned.output
    done = invoke("extract", *listed)
    assert done.exit_code == 0 and "list of 2 videos = 2 ok" in done.output, done.output
    (tmp_path / "few.txt").write_text("synth-00000.mp4\nsynth-00002.mp4\n")
    run(request(videos, tmp_path / "whole", dataset="list", list_file=tmp_path / "few.txt"))
    assert digests(store.root / "set") == digests(tmp_path / "whole")
    assert not any((tmp_path / "scratch").iterdir())

    (store.root / "lists" / "few.txt").write_bytes(b"caf\xe9.mp4\n")
    done = invoke("extract", *listed)
    assert done.exit_code == 1 and len(done.output.splitlines()) == 1
    assert "the list file s3://bucket/lists/few.txt is not UTF-8 text (byte 3)" in done.output
    (store.root / "lists" / "few.txt").unlink()
    done = invoke("extract", *listed)
    assert done.exit_code == 1 and len(done.output.splitlines()) == 1
    assert "s3://bucket/lists/few.txt: there is no such file: look whether the address is right" in done.output


def test_make_passes_addresses_on() -> None:
    assert "-m pipeline verify s3://bucket/set" in commands("verify", "SHARDS=s3://bucket/set")
    lines = commands("extract-flow", "DATASET=folder", "ROOT=s3://videos", "SHARDS=s3://bucket/set")
    assert "--root s3://videos --out s3://bucket/set " in lines
    assert "--shards s3://bucket/set " in commands("sweep", "SHARDS=s3://bucket/set")


def test_a_bad_address_or_scratch_is_one_line(videos: Path, tmp_path: Path) -> None:
    done = invoke("extract", *asked(videos, "nope://bucket/set", tmp_path))
    assert done.exit_code == 1 and "nope://bucket/set cannot be opened" in done.output
    assert len(done.output.splitlines()) == 1
    done = invoke("extract", *asked("memory://videos", str(tmp_path / "set"), tmp_path), "--flow", "truth")
    assert done.exit_code == 1 and "--flow truth reads files beside the videos" in done.output
    with pytest.raises(ValueError, match="scratch_gib is 0; give a positive number of GiB"):
        Places(videos, tmp_path, scratch_gib=0)

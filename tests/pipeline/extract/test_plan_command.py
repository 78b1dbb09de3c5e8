"""plan as a user meets it: what it measures, what it keeps and where, and its figures beside what came."""

from __future__ import annotations

import json
import os
import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.extract.forecast import Work, forecast
from pipeline.extract.forecast_beside import FORECAST, beside, kept_of, run_seconds
from pipeline.extract.forecast_sample import draw, measure
from shards import schema
from shards.reader import ShardSet
from tests.pipeline.extract.fake_estimators import Trouble, TroubledChoice, asked
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import make_videos, request
from tests.shards.bucket_store import bucket_at

SIZES = ("--image-size", "64", "--flow-size", "32", "--workers", "1")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips and an empty file."""
    made = make_videos(tmp_path_factory.mktemp("clips") / "videos", 6)
    (made / "empty.mp4").write_bytes(b"")
    return made


def invoke(command: str, videos: Path, *args: str | Path) -> Result:
    options = ["--dataset", "folder", "--root", videos, "--passes", "2", *SIZES, *args]
    return CliRunner().invoke(main, [command, *map(str, options)])


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_plan_then_extract_then_plan_beside_what_came(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    planned = invoke("plan", videos, "--out", out, "--sample", "99")
    assert planned.exit_code == 0, planned.output
    assert "7 videos in 1 chunk, 2 passes: 2 of 2 shards to make" in planned.output
    assert "sample: 7 of 7 videos drawn at random, rejected: empty_file 1" in planned.output
    assert "what decides: " in planned.output and "pays for itself from epoch" in planned.output
    assert files(out) == [FORECAST], "nothing of a set is there yet"
    done = invoke("extract", videos, "--out", out)
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.output.splitlines()]
    assert ["videos", "7", "7"] in lines and ["rejected", "1", "1"] in lines, done.output
    (out / schema.MANIFEST).rename(tmp_path / "manifest")
    killed = invoke("plan", videos, "--out", out)
    assert killed.exit_code == 0 and "nothing left to do; " in killed.output, "killed before its manifest was written"
    (tmp_path / "manifest").rename(out / schema.MANIFEST)
    assert ["pairs", "stored", "48", "48"] in lines and any(line[:1] == ["GiB"] for line in lines)
    (log,) = (out / ".log").glob("extract-*.jsonl")
    os.utime(log, (time.time() + 9e6, time.time() + 9e6))
    assert 0 < (run_seconds(out) or 0) < 600, "a run says how long it took"
    again = invoke("plan", videos, "--out", out)
    assert "0 of 2 shards to make" in again.output and "planned (95 % range)" in again.output
    as_json = json.loads(invoke("extract", videos, "--out", out, "--json").stdout)
    assert [row["what"] for row in as_json["forecast"]["rows"]] == ["videos", "rejected", "pairs stored", "time", "GiB"]


def test_the_bytes_are_those_of_really_stored_samples(tmp_path: Path) -> None:
    wanted = request(make_videos(tmp_path / "videos", 5), tmp_path / "set", content={"chunk_videos": 5})
    found = forecast(measure(wanted, wanted.plan(), videos=5, seconds=60), Work(5, 2, 4))
    manifest = run_here(wanted)
    came = sum(info.bytes for info in manifest.shards)
    assert 0 <= came - found.bytes.best < len(manifest.shards) * (10240 + 1024), "but for the end of each tar"
    assert manifest.counts["samples"] == found.samples.best
    assert manifest.counts["pairs"]["stored"] + manifest.counts["pairs"]["still"] == found.stored.best


def test_without_a_set_nothing_is_kept(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = files(videos)
    planned = invoke("plan", videos, "--sample", "2", "--seconds", "5", "--gpus", "8", "--json")
    body = json.loads(planned.stdout)
    assert body["videos"] == 7 and body["shards_to_make"] == 2 and body["settings"]["flow_size"] == 32
    said = body["forecast"]
    assert said["sampled"] == 2 and said["forecast"]["pairs"]["best"] <= 7 * 2 * 4
    assert said["elsewhere"] is None and "on 8 GPUs: unknown, for flow was measured on a CPU" in said["unknown"]
    assert not list(tmp_path.iterdir()) and files(videos) == before


def test_what_is_assumed_of_gpus_is_called_assumed(videos: Path) -> None:
    lines = invoke("plan", videos, "--sample", "6", "--gpus", "2", "--gpu-pairs-per-s", "500", "--cores", "64").output
    assert "there, 2 GPUs (500 pairs/s each, ASSUMED) and 64 cores" in lines
    assert "the rate of training is unknown (--train-samples-per-s)" in lines
    told = invoke(
        "plan", videos, "--sample", "6", "--gpus", "1", "--gpu-pairs-per-s", "500", "--train-samples-per-s", "57"
    )
    assert "at 57 samples/s of training from shards, as said" in told.output


def test_a_set_that_grows_has_a_share_left(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert invoke("extract", videos, "--out", out).exit_code == 0
    grown = invoke("plan", videos, "--out", out, "--passes", "8", "--sample", "3")
    assert "6 of 8 shards to make" in grown.output and "left to do: 75 %" in grown.output
    kept = kept_of(out)
    assert kept is not None and kept.passes == 8 and kept.videos == 7 and kept.sampled == 3
    compared = beside(out, ShardSet(out).manifest)
    assert compared is not None and "another extraction (passes: 8 planned, 2 in the set)" in compared.lines()[0]


def test_a_forecast_of_other_settings_is_not_put_beside(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert invoke("plan", videos, "--out", out, "--sample", "2", "--jpeg-quality", "50").exit_code == 0
    done = invoke("extract", videos, "--out", out)
    assert done.exit_code == 0
    assert "not put beside this set: the forecast of" in done.output
    assert "of another extraction (jpeg_quality: 90 in the set, 50 asked for)" in done.output
    (out / FORECAST).write_text("{}")
    damaged = invoke("extract", videos, "--out", out)
    assert damaged.exit_code == 0 and "is no forecast" in damaged.output, "what is made is made"


def test_videos_in_a_bucket_are_measured_and_the_forecast_is_kept_there(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bucket_at(tmp_path / "bucket", monkeypatch) as store:
        shutil.copytree(videos, store.root / "videos")
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        before = files(store.root)
        places = ("--root", "s3://bucket/videos", "--out", "s3://bucket/set", "--scratch", scratch)
        planned = invoke("plan", videos, *places, "--sample", "7")  # the last --root counts
        assert planned.exit_code == 0, planned.output
        assert "sample: 7 of 7 videos drawn at random, rejected: empty_file 1" in planned.output
        assert f"kept in s3://bucket/set/{FORECAST}" in planned.output and str(scratch) not in planned.output
        assert files(store.root) == sorted([*before, f"set/{FORECAST}"]) and not any(scratch.iterdir())


def test_the_sample_is_random_and_its_beginning_is_too(videos: Path, tmp_path: Path) -> None:
    places = request(videos, tmp_path / "set").plan().current
    assert draw(places, 99, 0) != list(places) and sorted(draw(places, 99, 0), key=places.index) == list(places)
    assert draw(places, 3, 0) == draw(places, 99, 0)[:3]
    assert draw(places, 99, 1) != draw(places, 99, 0) != draw(places, 99, -1), "--seed -1 is a seed as good as any"


def test_measuring_stops_when_time_is_up(videos: Path, tmp_path: Path) -> None:
    wanted = request(videos, tmp_path / "set")
    found = measure(wanted, wanted.plan(), videos=7, seconds=1e-6)
    assert len(found.videos) <= 2 and len(found.calls) <= 1, "one is always decoded"


def test_a_large_sample_holds_no_more_windows_than_it_may(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.extract.forecast_sample.MOST_WINDOWS", 3)
    monkeypatch.setattr("pipeline.extract.forecast_sample.TIMED_CALLS", 0)
    wanted = request(videos, tmp_path / "set", passes=2)
    found = measure(wanted, wanted.plan(), videos=7, seconds=60)
    assert sorted(video.windows for video in found.videos) == [0, 0, 0, 0, 0, 1, 2]
    assert forecast(found, Work(7, 2, 4)).ok.best == 6, "videos without flow are no rejects"


def test_a_video_that_the_estimator_cannot_take_is_an_expected_reject(tmp_path: Path) -> None:
    videos = make_videos(tmp_path / "videos", 3)
    wanted = asked(videos, tmp_path / "set", TroubledChoice(Trouble(tmp_path, raises=("synth-00001",))))
    found = measure(wanted, wanted.plan(), videos=3, seconds=60)
    assert found.rejected == {"flow_failed": 1}
    assert forecast(found, Work(3, 2, 4)).ok.best == 2


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_a_cluster_is_not_measured(videos: Path) -> None:
    refused = invoke("plan", videos, "--runner", "ray")
    assert refused.exit_code == 1 and "plan measures this machine" in refused.output
    assert invoke("plan", videos, "--runner", "ray", "--sample", "0").exit_code == 0


def test_run_logs_say_how_long_it_took(tmp_path: Path) -> None:
    logs = tmp_path / ".log"
    logs.mkdir()
    began = time.mktime(time.strptime("20260102-030405", "%Y%m%d-%H%M%S"))
    for name, seconds in (
        ("extract-20260102-030405.jsonl", 90),
        ("extract-20260102-030405-part-2-of-3.jsonl", 30),
        ("other.jsonl", 5),
    ):
        (logs / name).write_text("")
        os.utime(logs / name, (began + seconds, began + seconds))
    ended = logs / "extract-20260103-030405.jsonl"
    ended.write_text('{"video": "a"}\n' * 1000 + '{"run_s": 7.5}\n')
    assert run_seconds(tmp_path) == 127.5, "what a log says holds, wherever the file has been copied to"
    ended.unlink()
    assert run_seconds(tmp_path) == 120 and run_seconds(tmp_path / "copied") is None


def test_a_set_whose_forecast_was_left_is_continued(videos: Path, tmp_path: Path) -> None:
    """A folder that holds nothing but a log is no stranger's; one with anything else is."""
    out = tmp_path / "set"
    (out / ".log").mkdir(parents=True)
    assert invoke("plan", videos, "--out", out, "--sample", "0").exit_code == 0
    (out / "thesis.tex").write_text("")
    refused: Any = invoke("extract", videos, "--out", out)
    assert refused.exit_code == 1 and "holds 'thesis.tex'" in refused.output
    assert not (out / schema.MANIFEST).exists()

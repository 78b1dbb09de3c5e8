"""Sets that have lost something, whose videos have changed, or that shall be continued otherwise than they were begun."""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.extract.accounts import accounts
from pipeline.extract.plan import ChunkPlan, Continuing, PlanError, PlannedVideo
from pipeline.video.datasets import Video
from shards import schema
from shards.reader import ShardSet
from shards.records import committed
from shards.schema import Settings
from shards.verify import verify
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import digests, make_videos, request


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return make_videos(tmp_path / "videos", 3)


@pytest.fixture
def begun(videos: Path, tmp_path: Path) -> Path:
    run_here(request(videos, tmp_path / "set", passes=1))
    return tmp_path / "set"


def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {row["video"]: row for row in pq.read_table(out / schema.VIDEOS).to_pylist()}


@pytest.mark.parametrize("passes", [1, 2])
def test_a_lost_plan_is_not_made_up_again(videos: Path, begun: Path, passes: int) -> None:
    (begun / schema.PLAN).unlink()
    before = digests(begun)
    with pytest.raises(PlanError, match=r"plan.json is missing, and chunks have landed"):
        run_here(request(videos, begun, passes=passes))
    assert digests(begun) == before and verify(begun, deep=True) != []


@pytest.mark.parametrize("text", ["{}", "[]", '{"settings": 1, "passes": 2, "videos": []}', "{"])
def test_a_damaged_plan_is_one_line(videos: Path, begun: Path, text: str) -> None:
    (begun / schema.PLAN).write_text(text)
    with pytest.raises(PlanError, match=r"plan.json is damaged.*restore it"):
        run_here(request(videos, begun))


def test_a_shard_that_is_gone_is_made_again(videos: Path, begun: Path) -> None:
    before = digests(begun)
    (begun / schema.shard_path(1, 0)).unlink()
    wanted = request(videos, begun, passes=1)
    plan = wanted.plan()
    assert plan.missing(begun) == {1: [0]}
    run_here(wanted)
    assert digests(begun) == before


@pytest.mark.parametrize("manifest", [True, False])
def test_a_shard_that_is_cut_short_is_made_again(videos: Path, begun: Path, manifest: bool) -> None:
    before = digests(begun)
    os.truncate(begun / schema.shard_path(1, 0), 3000)
    if not manifest:
        (begun / schema.MANIFEST).unlink()
    command = ["extract", "--dataset", "folder", "--root", str(videos), "--out", str(begun), "--passes", "1"]
    command += ["--image-size", "64", "--flow-size", "32", "--chunk-videos", "2", "--workers", "1"]
    rerun = CliRunner().invoke(main, command)
    assert rerun.exit_code == 0, rerun.output
    assert "1 shard that had landed is gone or damaged: it is made again" in rerun.output
    assert digests(begun) == before
    again = CliRunner().invoke(main, command)
    assert "nothing left to do" in again.output and "made again" not in again.output


def test_a_damaged_account_of_videos_names_itself_and_a_way_out_that_works(videos: Path, begun: Path) -> None:
    run_here(request(videos, begun, passes=2))
    before = digests(begun)
    account = begun / "records" / "videos" / "000001.json"
    os.truncate(account, account.stat().st_size // 2)
    (begun / schema.MANIFEST).unlink()
    with pytest.raises(schema.ShardSetError, match=r"videos/000001.json is damaged .*delete the chunk's records"):
        run_here(request(videos, begun, passes=2))
    for record in begun.glob("records/pass-*/000001.parquet"):
        record.unlink()
    run_here(request(videos, begun, passes=2))
    assert digests(begun) == before and verify(begun, deep=True) == []


def test_a_set_of_two_roots_says_which_videos_a_root_lacks_and_links_to_both_do(
    videos: Path, begun: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for old, new in zip(sorted(videos.glob("*.mp4")), "uvwxy", strict=False):
        shutil.copy(old, other / f"{new}.mp4")
    run_here(request(other, begun, passes=1))
    way_out = r"links will do\)"
    with pytest.raises(
        PlanError, match=rf"3 videos of the set are not under .*other: 'synth-00000', 'synth-0.*{way_out}"
    ):
        run_here(request(other, begun, passes=2))
    (other / "x.mp4").write_bytes(b"")
    with pytest.raises(PlanError, match=rf"3 videos of the set are not under .*videos: 'u', 'v', 'w'; .*{way_out}"):
        run_here(request(videos, begun, passes=2))
    (other / "x.mp4").unlink()
    both = tmp_path / "both"
    both.mkdir()
    for path in (*videos.glob("*.mp4"), *other.iterdir()):
        (both / path.name).symlink_to(path)
    assert run_here(request(both, begun, passes=2)).complete and verify(begun, deep=True) == []


def test_the_counts_of_a_run_that_has_nothing_to_do_read_like_those_of_the_first(videos: Path, tmp_path: Path) -> None:
    command = ["extract", "--dataset", "folder", "--root", str(videos), "--out", str(tmp_path / "set"), "--passes", "1"]
    command += ["--image-size", "64", "--flow-size", "32", "--workers", "1"]
    for more in ([], ["--json"]):
        first, again = (CliRunner().invoke(main, [*command, *more]).stdout.splitlines() for _ in range(2))
        assert [line for line in first if "samples" in line] == [line for line in again if "samples" in line] != []
        shutil.rmtree(tmp_path / "set")


def test_the_record_and_not_an_older_manifest_says_what_has_landed(begun: Path) -> None:
    """As a run leaves it that is killed after it has made a shard again, now of other bytes."""
    place = begun / schema.record_path(1, 0)
    table = pq.read_table(place)
    note = json.loads(table.schema.metadata[b"flowfeat"])
    os.truncate(begun / schema.shard_path(1, 0), 3000)
    note["shard"]["bytes"] = 3000
    pq.write_table(table.replace_schema_metadata({"flowfeat": json.dumps(note)}), place)
    assert committed(begun) == {(0, 0), (1, 0)}


@pytest.mark.parametrize("name", [".tmp", "holiday.jpg"])
def test_a_directory_that_is_no_set_is_left_alone(videos: Path, tmp_path: Path, name: str) -> None:
    mine = tmp_path / "home" / name
    mine.mkdir(parents=True)
    (mine / "letter.txt").write_text("dear")
    with pytest.raises(PlanError, match="is not empty and no shard set"):
        run_here(request(videos, tmp_path / "home"))
    assert (mine / "letter.txt").read_text() == "dear" and os.listdir(tmp_path / "home") == [name]


def test_content_that_was_replaced_between_passes_is_noticed(videos: Path, begun: Path) -> None:
    clip = videos / "synth-00001.mp4"
    whole, times = clip.read_bytes(), clip.stat()
    os.utime(clip, (1, 1))  # a copy of the same video is the same video
    assert request(videos, begun).plan().missing(begun) == {0: [1], 1: [1]}
    clip.write_bytes(whole[:-100])
    with pytest.raises(PlanError, match=r"1 video has changed.*'synth-00001' \(\d+ bytes then, \d+ now\)"):
        run_here(request(videos, begun))
    clip.write_bytes(bytes(100) + whole[100:])
    with pytest.raises(PlanError, match="same size, other content"):
        run_here(request(videos, begun))
    clip.write_bytes(whole)
    os.utime(clip, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run_here(request(videos, begun)).passes == 2


def test_too_many_passes_can_be_taken_back(videos: Path, begun: Path) -> None:
    before = digests(begun)
    run_here(request(videos, begun, passes=3))
    assert run_here(request(videos, begun, passes=1)).passes == 3, "never by a smaller number alone"
    dropped = run_here(request(videos, begun, passes=1, continuing=Continuing(drop_passes=True)))
    assert dropped.passes == 1 and dropped.complete and digests(begun) == before
    assert verify(begun, deep=True) == []


def test_more_shards_than_there_should_be_are_never_counted(videos: Path, begun: Path) -> None:
    run_here(request(videos, begun, passes=3))
    plan = json.loads((begun / schema.PLAN).read_text())
    (begun / schema.PLAN).write_text(json.dumps({**plan, "passes": 1}))
    manifest = run_here(request(videos, begun, passes=2, continuing=Continuing(drop_passes=True)))
    assert manifest.complete and len(manifest.shards) == manifest.chunks * manifest.passes == 4


def test_a_file_with_an_existing_stem_is_another_video(videos: Path, begun: Path) -> None:
    """Its arrival changes what today's list calls the old one."""
    shards = {name: digest for name, digest in digests(begun).items() if name.endswith(".tar")}
    shutil.copy(videos / "synth-00002.mp4", videos / "synth-00000.mkv")
    run_here(request(videos, begun, passes=2))
    found = rows(begun)
    assert sorted(found) == ["synth-00000", "synth-00000.mkv", "synth-00001", "synth-00002"]
    assert found["synth-00000"]["path"] == "synth-00000.mp4" and found["synth-00000"]["anchors"] == 2
    assert shards.items() <= digests(begun).items() and verify(begun, deep=True) == []


def test_a_rejected_video_is_tried_again_and_nothing_else_is(videos: Path, tmp_path: Path) -> None:
    """A file that was still being copied."""
    whole, out = (videos / "synth-00000.mp4").read_bytes(), tmp_path / "set"
    (videos / "synth-00000.mp4").write_bytes(b"")
    assert run_here(request(videos, out)).counts["rejected"] == {"empty_file": 1}
    shards = {name: digest for name, digest in digests(out).items() if name.endswith(".tar")}
    (videos / "synth-00000.mp4").write_bytes(whole)
    for retry in ((), ("timeout",)):
        run_here(request(videos, out, continuing=Continuing(frozenset(retry))))
        assert rows(out)["synth-00000"]["status"] == schema.REJECTED
    manifest = run_here(request(videos, out, continuing=Continuing(frozenset({"empty_file"}))))
    assert manifest.complete and manifest.counts["videos"] == manifest.counts["ok"] == 3
    assert shards.items() <= digests(out).items() and len(manifest.shards) == len(shards) + 2
    row = rows(out)["synth-00000"]
    assert (row["status"], row["chunk"], row["position"], row["anchors"]) == (schema.OK, 2, 0, 2)
    assert verify(out, deep=True) == []
    run_here(request(videos, out, passes=3))  # the old place stays empty in new passes, too
    data = ShardSet(out)
    assert sorted(data.video).count("synth-00000") == 3 and verify(out, deep=True) == []
    again = run_here(request(videos, out, passes=3, continuing=Continuing(frozenset({"empty_file"}))))
    assert again.chunks == 3, "what is ok now is not tried again"


def test_a_retry_that_was_interrupted_keeps_the_first_outcome(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    (videos / "synth-00000.mp4").write_bytes(b"")
    run_here(request(videos, out))
    wanted = request(videos, out, continuing=Continuing(frozenset({"empty_file"})))

    def stop(event: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_here(wanted, on_event=stop)
    assert rows(out)["synth-00000"]["reason"] == "empty_file" and len(rows(out)) == 3
    (2, 0) in committed(out) or run_here(wanted)
    assert len(rows(out)) == 3


def test_the_accounts_close_whatever_happens(tmp_path: Path) -> None:
    """200 random sets: landed or not, rejected or not, listed or gone, tried again or not."""
    draw, settings = random.Random(0), Settings("folder", {}, chunk_videos=4)
    for _ in range(200):
        count = draw.randrange(1, 30)
        known = [PlannedVideo(Video(f"v{i}", tmp_path, "file"), f"v{i}", i // 4, i % 4) for i in range(count)]
        again = [v for v in known if draw.random() < 0.2]
        places = (*known, *(replace(v, chunk=100 + i) for i, v in enumerate(again)))
        listed = frozenset(v.video.id for v in known if draw.random() < 0.8)
        plan = ChunkPlan(settings, 1, places, listed, ignored=draw.randrange(3))
        landed = [v.video.id for v in known if draw.random() < 0.7]
        outcomes = [
            (name, *draw.choice([("ok", ""), ("rejected", "corrupt"), ("rejected", "timeout")])) for name in landed
        ]
        found = accounts(plan, outcomes)
        assert found.ok + sum(found.rejected.values()) + found.pending == len(listed)
        assert found.gone == len(set(landed) - listed)
        if landed:
            with pytest.raises(AssertionError, match="two outcomes"):
                accounts(plan, [*outcomes, outcomes[0]])


def test_the_summary_closes_as_text_and_as_json(videos: Path, tmp_path: Path) -> None:
    (videos / "broken.mp4").write_bytes(b"")
    (videos / "notes.txt").write_text("not a video")
    base = ["extract", "--dataset", "folder", "--root", str(videos), "--out", str(tmp_path / "set"), "--workers", "1"]
    base += ["--passes", "1", "--image-size", "64", "--flow-size", "32"]
    said = CliRunner().invoke(main, base)
    assert said.exit_code == 0 and "list of 4 videos = 3 ok + empty_file 1" in said.output, said.output
    (videos / "synth-00002.mp4").unlink()
    body = json.loads(CliRunner().invoke(main, [*base, "--json"]).stdout.splitlines()[-1])
    ignored = 1 + len(list(videos.glob("*.scene.json")))
    assert body["of_list"] == {
        "listed": 3,
        "ok": 2,
        "rejected": {"empty_file": 1},
        "pending": 0,
        "gone": 1,
        "ignored": ignored,
    }

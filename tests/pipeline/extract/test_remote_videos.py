"""Videos read from remote storage: the bytes of a local run, bounded scratch, and faults that cost a video or end the run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from common.command import PlainError
from pipeline.extract.local import LocalRunner
from pipeline.extract.places import Places
from pipeline.extract.plan import Continuing, PlanError
from pipeline.extract.run import extract
from pipeline.extract.runner import Event, VideoReport
from shards import schema
from shards.schema import Manifest
from tests.pipeline.extract.remote_extraction import HASTY
from tests.pipeline.extract.small_extraction import digests, make_videos, request
from tests.shards.bucket_store import BucketStore

URL = "s3://bucket/videos"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips in folders, and files that are rejected or ignored."""
    root = make_videos(tmp_path_factory.mktemp("made"), 4)
    out = tmp_path_factory.mktemp("videos")
    for number, path in enumerate(sorted(root.glob("*.mp4"))):
        (out / f"class {number % 2}").mkdir(exist_ok=True)
        shutil.copy(path, out / f"class {number % 2}" / path.name)
    (out / "a_empty.mp4").touch()
    (out / "b_text.mp4").write_text("<html><body>404 not found</body></html>")
    (out / "notes.txt").write_text("no video")
    return out


@pytest.fixture
def store(store: BucketStore, videos: Path) -> BucketStore:
    """The package's store, with the videos in it."""
    shutil.copytree(videos, store.root / "videos")
    return store


def run_from(
    root: str | Path, out: str | Path, scratch: Path, told: list[Event] | None = None, gib: float = 1.0, **changes: Any
) -> Manifest:
    places = Places(root, out, scratch, gib, HASTY)
    wanted = request(places.root, places.out, **changes)
    with places.opened(LocalRunner(1, wanted.estimator, (), places.remote), writing=True) as runner:
        events = told if told is not None else []
        return extract(wanted, runner, lambda e, tally: events.append(places.told(e)), lambda plan, tally: None)


def reasons(out: Path) -> dict[str, str]:
    return {row["video"]: row["reason"] for row in pq.read_table(out / schema.VIDEOS).to_pylist()}


def test_videos_and_set_in_a_bucket_give_the_bytes_of_folders(
    whole: dict[str, str], store: BucketStore, tmp_path: Path
) -> None:
    told: list[Event] = []
    run_from(URL, "s3://bucket/set", tmp_path / "scratch", told, gib=1e-9)
    assert digests(store.root / "set") == whole, "also where one video at a time has room"
    assert not any((tmp_path / "scratch").iterdir())
    said = [event.detail for event in told if isinstance(event, VideoReport) and event.status == schema.REJECTED]
    assert said == [
        "s3://bucket/videos/a_empty.mp4 has 0 bytes",
        "s3://bucket/videos/b_text.mp4 is a web page or XML text",
    ]
    fetched = [name for method, name in store.calls if method == "GET" and name.startswith("videos/")]
    assert sorted(fetched) == sorted({name for name in fetched} - {"videos/a_empty.mp4", "videos/notes.txt"}), (
        "each video once, in one request"
    )


def test_a_list_names_what_is_wanted_and_frame_folders_are_fetched_whole(
    videos: Path, store: BucketStore, tmp_path: Path
) -> None:
    frames = store.root / "videos" / "frames" / "walk"
    frames.mkdir(parents=True)
    texture = np.random.default_rng(0).integers(0, 255, (80, 120, 3), np.uint8)
    for number in range(8):
        Image.fromarray(texture[number : number + 64, :96]).resize((96, 64)).save(frames / f"{number:05d}.png")
    shutil.copytree(store.root / "videos", tmp_path / "here")
    listed = tmp_path / "list.txt"
    listed.write_text("class 0/synth-00000.mp4\nframes/walk\nclass 1/never.mp4\n")
    changes: dict[str, Any] = {"dataset": "list", "list_file": listed, "passes": 1}
    run_from(URL, tmp_path / "remote", tmp_path / "scratch", **changes)
    run_from(tmp_path / "here", tmp_path / "local", tmp_path / "scratch", **changes)
    assert digests(tmp_path / "remote") == digests(tmp_path / "local")
    assert sorted(reasons(tmp_path / "remote").values()) == ["", "", "missing"]


def test_a_video_that_cannot_be_fetched_is_rejected_and_tried_again_on_request(
    whole: dict[str, str], store: BucketStore, tmp_path: Path
) -> None:
    bad, out = "GET videos/class 0/synth-00000.mp4", tmp_path / "set"
    store.wrong = lambda number, what: "500" if what == bad else "404" if what.endswith("00001.mp4") else ""
    run_from(URL, out, tmp_path / "scratch")
    found = reasons(out)
    assert found["class 0/synth-00000"] == "not_fetched" and found["class 1/synth-00001"] == "missing"
    detail = {row["video"]: row["detail"] for row in pq.read_table(out / schema.VIDEOS).to_pylist()}
    assert detail["class 0/synth-00000"].startswith("class 0/synth-00000.mp4, bytes 0-")
    assert "after 3 attempts" in detail["class 0/synth-00000"] and str(tmp_path) not in str(detail)
    store.wrong = lambda number, what: ""
    again = Continuing(retry=frozenset({"not_fetched", "missing"}))
    manifest = run_from(URL, out, tmp_path / "scratch", continuing=again)
    assert manifest.counts["ok"] == 4 and sum(manifest.counts["rejected"].values()) == 2


@pytest.mark.parametrize("wrong", ["500", "cuts the body", "hangs"])
def test_what_passes_changes_nothing(whole: dict[str, str], store: BucketStore, tmp_path: Path, wrong: str) -> None:
    failed: set[str] = set()

    def once(number: int, what: str) -> str:
        if not what.endswith(".mp4") or what in failed:
            return ""
        failed.add(what)
        return wrong

    store.wrong = once
    run_from(URL, tmp_path / "set", tmp_path / "scratch")
    assert digests(tmp_path / "set") == whole and len(failed) >= 5


@pytest.mark.parametrize(("wrong", "way_out"), [("expired", "renew the credential"), ("500", "wait until the storage")])
def test_storage_that_gives_nothing_any_more_ends_the_run_in_one_line(
    whole: dict[str, str], store: BucketStore, tmp_path: Path, wrong: str, way_out: str
) -> None:
    store.wrong = lambda number, what: wrong if what.startswith("GET videos/") else ""
    with pytest.raises(PlainError, match=way_out) as caught:
        run_from(URL, tmp_path / "set", tmp_path / "scratch", content={"chunk_videos": 1})
    assert "s3://bucket/videos/" in str(caught.value) and "\n" not in str(caught.value)
    store.wrong = lambda number, what: ""
    manifest = run_from(URL, tmp_path / "set", tmp_path / "scratch", content={"chunk_videos": 1})
    assert manifest.counts["ok"] == 4 and manifest.complete


def test_an_object_that_was_replaced_is_noticed_by_its_tag(store: BucketStore, tmp_path: Path) -> None:
    run_from(URL, tmp_path / "set", tmp_path / "scratch", passes=1)
    clip = store.root / "videos" / "class 0" / "synth-00000.mp4"
    data = bytearray(clip.read_bytes())
    data[len(data) // 2] ^= 255  # neither size nor ends
    clip.write_bytes(data)
    run_from(URL, tmp_path / "set", tmp_path / "scratch", passes=1)
    with pytest.raises(PlanError, match=r"1 video has changed .*'class 0/synth-00000' \(same size, other content\)"):
        run_from(URL, tmp_path / "set", tmp_path / "scratch", passes=2)


def test_addresses_that_hold_nothing_or_impossible_names_are_refused(store: BucketStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is nothing under s3://bucket/nowhere"):
        run_from("s3://bucket/nowhere", tmp_path / "set", tmp_path / "scratch")
    with pytest.raises(ValueError, match=r"^s3://bucket/videos holds no videos in the davis layout"):
        run_from(URL, tmp_path / "set", tmp_path / "scratch", dataset="davis")
    (store.root / "videos" / ("x" * 200)).mkdir()
    long = "y" * 200
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"/odd/{long * 2}.mp4", b"x")
    with pytest.raises(ValueError, match=r"the object 'memory://odd/yyy.*cannot be listed \(File name too long\)"):
        run_from("memory://odd", tmp_path / "set", tmp_path / "scratch")
    assert not (tmp_path / "set").exists() and not any((tmp_path / "scratch").iterdir())

"""Estimators that raise, processes that die, decoders that hang: the guilty video is named, everything else is as if nothing had been."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.extract import run as run_module
from pipeline.extract.decoding import DecodeTask, DecodingPool
from pipeline.extract.local import LocalRunner
from pipeline.extract.run import ExtractionRequest, extract
from pipeline.extract.runner import Event, ExtractionError
from pipeline.extract.tally import Tally
from pipeline.video import child_process
from pipeline.video.arena import Arena
from pipeline.video.datasets import Listing, Video
from pipeline.video.decoder import layout_of
from pipeline.video.messages import DecodeHeader, DecodeRefusal
from shards import schema
from shards.codec import decode_flow
from shards.reader import ShardSet
from shards.schema import Manifest, Settings
from shards.verify import verify
from tests.pipeline.extract.fake_estimators import TogetherChoice, Trouble, TroubledChoice, asked
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import SMALL, digests, make_videos, request, run

DEVICES = ("fake:0", "fake:1")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"), 7)


def run_on_devices(
    wanted: ExtractionRequest, on_event: Callable[[Event, Tally], None] = lambda event, tally: None
) -> Manifest:
    return extract(wanted, LocalRunner(2, wanted.estimator, DEVICES), on_event, lambda plan, tally: None)


def rows(out: Path) -> dict[str, dict[str, str]]:
    return {row["video"]: row for row in pq.read_table(out / schema.VIDEOS).to_pylist()}


@pytest.mark.parametrize("trouble", ["raises", "falls", "kills"])
def test_the_guilty_video_is_named_and_the_others_are_as_they_would_be(
    videos: Path, tmp_path: Path, marks: Path, trouble: str
) -> None:
    """raises: one exception. falls: after it the estimator takes nothing any more. kills: it ends the process."""
    guilty = ("synth-00004",)
    troubles = {
        "raises": Trouble(marks, raises=guilty),
        "falls": Trouble(marks, raises=guilty, falls=True),
        "kills": Trouble(marks, kills=guilty),
    }
    out = tmp_path / "set"
    run(asked(videos, out, TroubledChoice(troubles[trouble])), workers=1)
    found = rows(out)
    assert [name for name, row in found.items() if row["status"] != schema.OK] == list(guilty)
    assert found[guilty[0]]["reason"] == "flow_failed"
    said = "it has ended 2 workers (exit code 9" if trouble == "kills" else "IndexError: no such pixel"
    assert said in found[guilty[0]]["detail"] or "RuntimeError: unspecified" in found[guilty[0]]["detail"]
    run_here(asked(videos, tmp_path / "whole", TroubledChoice(Trouble(marks))))
    mine, theirs = digests(out), digests(tmp_path / "whole")
    untouched = [name for name in theirs if name.endswith(("000000.tar", "000001.tar", "000003.tar"))]
    assert len(untouched) == 6 and all(mine[name] == theirs[name] for name in untouched)
    assert verify(out, deep=True) == []


def test_a_video_that_raises_is_rejected_alike_whoever_runs_the_job(videos: Path, tmp_path: Path, marks: Path) -> None:
    choice = TogetherChoice(Trouble(marks, raises=("synth-00002",)))
    run_on_devices(asked(videos, tmp_path / "devices", choice))
    run_here(asked(videos, tmp_path / "here", choice))
    assert rows(tmp_path / "here")["synth-00002"]["reason"] == "flow_failed"
    assert digests(tmp_path / "devices") == digests(tmp_path / "here")


def test_several_devices_one_of_which_dies(videos: Path, tmp_path: Path, marks: Path) -> None:
    """The other goes on, the dead one's batch is done again, and the bytes are those of one process."""
    choice = TogetherChoice(Trouble(marks, dies_once_on="fake:1"))
    run_on_devices(asked(videos, tmp_path / "devices", choice, chunk_videos=4))
    assert {"died", "fake:0"} <= {mark.name.split("-")[0] for mark in marks.iterdir()}
    run_here(asked(videos, tmp_path / "here", choice, chunk_videos=4))
    assert digests(tmp_path / "devices") == digests(tmp_path / "here")
    data = ShardSet(tmp_path / "devices")
    assert len(data) == 14 and data.optional_bytes(0, 0, "confidence").startswith(b"\xff\xd8")


def test_a_device_that_dies_for_good_leaves_the_others_at_work(
    videos: Path, tmp_path: Path, marks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    choice = TogetherChoice(Trouble(marks, dies_once_on="fake:1", stays_dead=True))
    run_on_devices(asked(videos, tmp_path / "devices", choice, chunk_videos=4))
    assert "going on with 1 worker for flow instead of 2" in caplog.text and "fake:1: no such device" in caplog.text
    assert {mark.name.split("-")[0] for mark in marks.iterdir()} == {"died", "refused", "fake:0"}
    run_here(asked(videos, tmp_path / "here", choice, chunk_videos=4))
    assert digests(tmp_path / "devices") == digests(tmp_path / "here")


def test_batches_do_not_depend_on_what_had_landed(videos: Path, tmp_path: Path, marks: Path) -> None:
    """The fake's flow depends on the size of its batch, so this fails wherever a batch is put together by chance."""
    choice = TogetherChoice(Trouble(marks))
    grown, once = tmp_path / "grown", tmp_path / "once"
    run_on_devices(asked(videos, grown, choice, passes=1, chunk_videos=4))
    (grown / schema.record_path(1, 0)).unlink()  # as if it had been killed before this one landed
    run_on_devices(asked(videos, grown, choice, passes=3, chunk_videos=4))
    run_here(asked(videos, once, choice, passes=3, chunk_videos=4))
    assert digests(grown) == digests(once)
    flows = ShardSet(once)
    first = decode_flow(flows.flow_bytes(0, 0))
    assert abs(float(first.values_chw[0].mean()) * first.quantum_px) > 0.05, "the fake's rounding is there"


def test_an_estimator_that_never_works_ends_the_run_as_itself(videos: Path, tmp_path: Path, marks: Path) -> None:
    everything = tuple(f"synth-{i:05d}" for i in range(7)) + ("noise",)
    with pytest.raises(ExtractionError, match="chunk 0: IndexError: no such pixel"):
        run_on_devices(asked(videos, tmp_path / "set", TogetherChoice(Trouble(marks, raises=everything))))


def hanging(folder: Path) -> Video:
    """A frame folder whose pictures are pipes without a writer."""
    folder.mkdir(parents=True)
    for i in range(5):
        os.mkfifo(folder / f"{i}.jpg")
    return Video("hanging", folder, "frames", 24.0)


@pytest.mark.parametrize("how", ["hangs", "dies"])
def test_a_decoder_that_fails_is_tried_again_and_the_next_video_starts_at_once(
    videos: Path, tmp_path: Path, how: str
) -> None:
    """One seat only. When the second try is over, a process for the next video is on its way."""
    settings, arena = Settings("folder", {}, **SMALL), Arena()
    size = layout_of(settings).size
    arena.grow(2 * size)
    pool = DecodingPool(arena, 1)
    ended: dict[str, tuple[float, DecodeHeader | DecodeRefusal]] = {}

    def task(video: Video, place: int, deadline_s: float) -> DecodeTask:
        def tell(answer: DecodeHeader | DecodeRefusal) -> None:
            ended[video.id] = time.monotonic(), answer

        return DecodeTask(video, [0], settings, [place], deadline_s, tell)

    started: dict[int, float] = {}
    try:
        pool.submit(task(hanging(tmp_path / "pipes"), 0, 0.3 if how == "hangs" else 60.0))
        pool.submit(task(Video("good", videos / "synth-00000.mp4", "file"), size, 60.0))
        until = time.monotonic() + 60
        while len(ended) < 2 and time.monotonic() < until:
            for child in pool.children:
                started.setdefault(child.process.pid, child.started)
                if how == "dies" and "hanging" not in ended and child.videos:
                    os.kill(child.process.pid, signal.SIGSEGV)
                pool.heard(child)
            pool.expire()
            time.sleep(0.005)
    finally:
        pool.close()
    (when, refusal), (later, good) = ended["hanging"], ended["good"]
    assert isinstance(refusal, DecodeRefusal) and len(started) == 3, (
        "a process for each try, and one for the next video"
    )
    assert refusal.reason == ("timeout" if how == "hangs" else "decoder_crashed")
    assert isinstance(good, DecodeHeader) and when < later
    assert max(started.values()) - when < 2.0


def test_a_decoder_whose_memory_grows_makes_room_for_another(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One seat, three videos: the process holds too much after the second."""
    held = iter([50, 179, 50])
    monkeypatch.setattr(child_process, "LEAK_SHOWS_AFTER_VIDEOS", 2)
    monkeypatch.setattr(child_process.ChildProcess, "resident_bytes", lambda child: next(held) << 20)
    settings, arena, made_by = Settings("folder", {}, **SMALL), Arena(), list[int]()
    arena.grow(layout_of(settings).size)
    pool = DecodingPool(arena, 1)
    clip = Video("good", videos / "synth-00000.mp4", "file")

    def tell(answer: DecodeHeader | DecodeRefusal) -> None:
        assert isinstance(answer, DecodeHeader)
        made_by.append(at_work)

    try:
        for number in range(3):
            pool.submit(DecodeTask(clip, [0], settings, [0], 60.0, tell))
            until = time.monotonic() + 60
            while len(made_by) == number and time.monotonic() < until:
                [child] = pool.children
                at_work = child.process.pid
                pool.heard(child)
                time.sleep(0.005)
    finally:
        pool.close()
    assert made_by[0] == made_by[1] != made_by[2]


def test_the_listing_is_made_once(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the plan, unless another run has added to the set meanwhile."""
    listed: list[Path] = []
    listing = run_module.survey

    def count(dataset: str, root: Path, *, list_file: Path | None = None) -> Listing:
        listed.append(root)
        return listing(dataset, root, list_file=list_file)

    monkeypatch.setattr(run_module, "survey", count)
    run_here(request(videos, tmp_path / "set", passes=1))
    assert len(listed) == 1

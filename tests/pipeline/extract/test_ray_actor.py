"""What runs inside an actor, without Ray: the answers of an engine, what it does not see, and that stopping it ends what is under way."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.extract.ray_actor import Engine
from pipeline.extract.runner import ChunkDone, ChunkJob, Event
from pipeline.video.remote_videos import RemoteVideos
from shards.records import committed
from tests.pipeline.extract.fake_estimators import Trouble, TroubledChoice, asked
from tests.pipeline.extract.remote_extraction import HASTY
from tests.pipeline.extract.small_extraction import make_videos
from tests.shards.bucket_store import BucketStore


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"), 6)


@pytest.fixture
def choice(marks: Path) -> TroubledChoice:
    return TroubledChoice(Trouble(marks))


@pytest.fixture
def engine(choice: TroubledChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.chdir(tmp_path)
    engine = Engine(str(tmp_path), 1, choice, ())
    assert engine.ready().refusal == ""
    yield engine
    engine.stop()


def jobs_for(videos: Path, out: Path, choice: TroubledChoice) -> list[ChunkJob]:
    plan = asked(videos, out, choice).plan()
    return [
        ChunkJob(out, plan.settings, c, (0, 1), plan.chunk(c), batch=16, deadline_s=60.0) for c in range(plan.chunks)
    ]


def test_storage_that_gives_nothing_any_more_ends_the_run(
    store: BucketStore, videos: Path, tmp_path: Path, choice: TroubledChoice
) -> None:
    """Another actor would find the same, so the chunks of this one are not handed on."""
    shutil.copytree(videos, store.root / "videos")
    remote = RemoteVideos("s3://bucket/videos", tmp_path / "scratch", HASTY)
    with remote.opened():
        jobs = jobs_for(remote.root, tmp_path / "set", choice)
        engine = Engine(str(tmp_path), 1, choice, (), (pickle.loads(pickle.dumps(remote)), 1 << 20))
        assert engine.ready().refusal == ""
        store.wrong = lambda number, what: "500"
        step = engine.step(jobs)
        while step.busy:
            step = engine.step([])
        engine.stop()
    assert "s3://bucket/videos/synth-0000" in step.ends_run and "\n" not in step.ends_run
    assert "wait until the storage answers and run the same command again; chunks that have landed" in step.ends_run
    assert "StorageError" in step.trace


def test_an_engine_is_given_chunks_and_says_what_became_of_them(
    engine: Engine, videos: Path, tmp_path: Path, choice: TroubledChoice
) -> None:
    first, *others = jobs_for(videos, Path("set"), choice)  # relative to where the driver is
    assert engine.step([]).events == () and not engine.step([]).busy
    events: list[Event] = []
    for jobs in ([first], others):
        step = engine.step(jobs)
        events += step.events
        while step.busy:
            step = engine.step([])
            events += step.events
        assert not step.broken
    assert [event.chunk for event in events if isinstance(event, ChunkDone)] == [0, 1, 2]
    assert len(committed(tmp_path / "set")) == 6


def test_stopping_an_engine_ends_what_is_under_way(
    engine: Engine, videos: Path, tmp_path: Path, choice: TroubledChoice
) -> None:
    step = engine.step(jobs_for(videos, tmp_path / "set", choice))
    while not step.events:
        step = engine.step([])
    engine.stop()
    landed = committed(tmp_path / "set")
    assert len(landed) < 6 and not list((tmp_path / "set" / ".tmp").glob("*/*"))
    assert not engine._thread.is_alive()


def test_an_engine_that_breaks_says_how(engine: Engine, videos: Path, tmp_path: Path, choice: TroubledChoice) -> None:
    (job, *_) = jobs_for(videos, tmp_path / "set", choice)
    broken = ChunkJob(job.root, job.settings, 0, (0,), job.videos, batch=0, deadline_s=60.0)  # no range has steps of 0
    step = engine.step([broken])
    while step.busy:
        step = engine.step([])
    assert step.broken.startswith("ValueError: ") and "in batches" in step.trace


def test_what_a_node_does_not_see(engine: Engine, videos: Path) -> None:
    there, gone = videos / "synth-00000.mp4", videos / "gone.mp4"
    assert engine.unseen([there, gone], 0.25) == str(gone)
    assert engine.unseen([there], 0.0) == "" == engine.unseen([], 0.0)

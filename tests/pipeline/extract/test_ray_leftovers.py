"""What an actor has fetched when it dies: removed when its death is noticed, and nothing of an actor that is at work."""

from __future__ import annotations

import os
import pickle
import platform
import signal
from collections import Counter, deque
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.extract import ray_runner as module
from pipeline.extract.ray_actor import Engine
from pipeline.extract.ray_runner import RayRunner
from pipeline.flow.estimator import choose
from pipeline.video.datasets import Video
from pipeline.video.remote_videos import RemoteVideos


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[RemoteVideos]:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").write_bytes(b"a" * 1000)
    remote = RemoteVideos(f"file://{tmp_path / 'videos'}", tmp_path / "scratch")
    with remote.opened():
        yield remote
    assert not any((tmp_path / "scratch").iterdir())


def actor(message: bytes, connection: Connection) -> None:
    """Fetches a video and is at it until it is told to end."""
    remote: RemoteVideos = pickle.loads(message)
    with remote.fetching():
        connection.send(remote.fetch(Video("a", remote.root / "a.mp4", "file")))
        connection.recv()


def begun(remote: RemoteVideos) -> tuple[int, Path, Connection]:
    ours, theirs = get_context("fork").Pipe()
    process = get_context("fork").Process(target=actor, args=(pickle.dumps(remote), theirs))
    process.start()
    assert process.pid is not None
    return process.pid, ours.recv(), ours


def test_the_copies_of_a_dead_actor_are_removed_when_its_death_is_noticed(
    remote: RemoteVideos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: True)
    runner = RayRunner(choose("dis"), actors=2, workers=1, on_gpus=False, remote=(remote, 1 << 20))
    seats = [module._Seat(None, None, ready=True) for _ in range(2)]
    monkeypatch.setattr(runner, "_ray", SimpleNamespace(kill=lambda actor: None))
    monkeypatch.setattr(runner, "_seats", seats)
    monkeypatch.setattr(runner, "_new_seat", lambda: module._Seat(None, None))
    dying, left, _ = begun(remote)
    _, alive, working = begun(remote)
    elsewhere = remote.home / "fetched-another-node-0123456789ab"
    elsewhere.mkdir()
    (elsewhere / "00000001.mp4").touch()
    about_to_begin = remote.home / f"fetched-{platform.node()}-0123456789ab"
    about_to_begin.mkdir()
    os.kill(dying, signal.SIGKILL)
    os.waitpid(dying, 0)
    assert left.exists() and left.parent != alive.parent
    runner._lost(seats[0], "killed", Counter(), deque(), lambda event: None)
    assert not left.parent.exists() and alive.read_bytes() == b"a" * 1000
    assert about_to_begin.exists() and any(elsewhere.iterdir()), "who can tell what they are at"
    working.send("end")
    with pytest.raises(EOFError):
        working.recv()
    assert not alive.parent.exists(), "who ends by itself takes its copies along"


def test_an_engine_says_that_it_is_at_work(remote: RemoteVideos, tmp_path: Path) -> None:
    theirs: RemoteVideos = pickle.loads(pickle.dumps(remote))
    engine = Engine(str(tmp_path), 1, choose("dis"), (), (theirs, 1 << 20))
    assert engine.ready().refusal == ""
    copy = theirs.fetch(Video("a", remote.root / "a.mp4", "file"))
    remote.remove_left()
    assert copy.exists()
    engine.stop()
    assert not copy.exists()

"""Workers that say nothing any more, and decoders that end before they have said anything: nobody is waited for for ever."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.extract import crew as crew_module
from pipeline.extract.blame import FlowFailure
from pipeline.extract.crew import Crew, Member, Order
from pipeline.extract.decoding import STARTS, TRIES_WHEN_KILLED, DecodeTask, DecodingPool
from pipeline.extract.local import LocalRunner
from pipeline.extract.run import extract
from pipeline.extract.runner import ExtractionError
from pipeline.extract.worker import FlowTask, StoredWindow, TaskDone
from pipeline.extract.worker_pipe import WorkerPipe
from pipeline.flow.estimator import choose
from pipeline.video.arena import Arena
from pipeline.video.child_process import ChildProcess
from pipeline.video.datasets import Video
from pipeline.video.decoder import layout_of
from pipeline.video.messages import DecodeHeader, DecodeRefusal, WindowFrames
from shards import schema
from shards.schema import Settings
from shards.verify import verify
from tests.pipeline.extract.fake_estimators import TogetherChoice, Trouble, TroubledChoice, asked
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import SMALL, digests, make_videos, run


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"), 3)


def test_a_video_over_which_the_estimator_hangs_is_rejected(
    videos: Path, tmp_path: Path, marks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers are ended for it; the other videos are as they would be."""
    monkeypatch.setattr(crew_module, "ANSWER_LEAST_S", 4.0)
    monkeypatch.setattr(crew_module, "ANSWER_TIMES", 0.0)
    out, guilty = tmp_path / "set", "synth-00002"
    run(asked(videos, out, TroubledChoice(Trouble(marks, hangs=(guilty,)))), workers=1)
    found = {row["video"]: row for row in pq.read_table(out / schema.VIDEOS).to_pylist()}
    assert [name for name, row in found.items() if row["status"] != schema.OK] == [guilty]
    assert found[guilty]["reason"] == "flow_failed"
    assert re.search(r"it has ended 2 workers \(no answer for \d+ s\)", found[guilty]["detail"])
    run_here(asked(videos, tmp_path / "whole", TroubledChoice(Trouble(marks))))
    mine, theirs = digests(out), digests(tmp_path / "whole")
    untouched = [name for name in theirs if name.endswith("000000.tar")]
    assert len(untouched) == 2 and all(mine[name] == theirs[name] for name in untouched)
    assert verify(out, deep=True) == []


def test_a_worker_that_is_stopped_in_the_middle_of_an_answer_is_replaced(
    videos: Path, tmp_path: Path, marks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a debugger, or a batch system that suspends: half of a message is not waited for."""
    monkeypatch.setattr(crew_module, "ANSWER_LEAST_S", 4.0)
    monkeypatch.setattr(crew_module, "ANSWER_TIMES", 0.0)
    out = tmp_path / "set"
    run(asked(videos, out, TroubledChoice(Trouble(marks, stopped_once="synth-00001"))), workers=1)
    assert (marks / "stopped").exists()
    run_here(asked(videos, tmp_path / "whole", TroubledChoice(Trouble(marks))))
    assert digests(out) == digests(tmp_path / "whole")


def sleeper(replaces: bool, ready: bool) -> Member:
    process = get_context("fork").Process(target=time.sleep, args=(600,))
    process.start()
    pipe = WorkerPipe(get_context("fork").Pipe()[0])
    member = Member(process, pipe, choose("dis"), ready=ready, replaces=replaces)
    member.since -= 100
    return member


def test_a_device_on_which_nothing_can_be_built_any_more_leaves_the_others_at_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(crew_module, "BUILDING_S", 50.0)
    crew = Crew([choose("dis")] * 2, Arena(), Arena(), threads=1, depth=2)
    healthy, stuck = sleeper(False, True), sleeper(True, False)
    crew.members = [healthy, stuck]
    try:
        crew.expire()
        assert crew.members == [healthy], "who has nothing to do may be silent for ever"
        assert stuck.process.exitcode == -signal.SIGKILL
        assert "going on with 1 worker for flow instead of 2: a worker was silent for 100 s" in caplog.text
        crew.members = [stuck := sleeper(True, False)]
        with pytest.raises(ExtractionError, match="silent for 100 s while building the flow estimator"):
            crew.expire()
    finally:
        crew.members = [healthy, stuck]
        crew.close()


def talkative(connection: Connection) -> None:
    """Answers each task at length, and does not listen meanwhile."""
    while True:
        task: FlowTask = connection.recv()
        time.sleep(0.3)
        connection.send(TaskDone((FlowFailure(task.windows[0].video.id[:5] + "x" * (4 << 20)),)))


def test_a_task_too_large_for_the_pipe_is_sent_bit_by_bit_to_who_is_talking() -> None:
    """Else parent and worker would each wait for the other to take what it says."""
    context = get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=talkative, args=(theirs,))
    process.start()
    crew = Crew([choose("dis")], Arena(), Arena(), threads=1, depth=2)
    crew.members = [member := Member(process, WorkerPipe(ours), choose("dis"), ready=True)]
    frames = WindowFrames(2, 0.1, (0, 1, 3, 4), (0.0, 0.0, 0.2, 0.2))
    answers: list[str] = []

    def done(answered: TaskDone) -> None:
        assert isinstance(answered.answers[0], FlowFailure)
        answers.append(answered.answers[0].detail[:5])

    def work_through() -> None:
        for number in range(3):
            video = Video(f"vid-{number}" + "y" * 500_000, Path("x.mp4"), "file")
            task = FlowTask(Settings("folder", {}, **SMALL), (StoredWindow(video, 0, frames, 0),))
            crew.submit(Order(task, done, lambda order, death: None))
        while len(answers) < 3:
            wait([member.pipe.fileno()], 0.01)
            crew.heard(member)

    thread = threading.Thread(target=work_through, daemon=True)
    thread.start()
    thread.join(30)
    process.kill()
    assert answers == ["vid-0", "vid-1", "vid-2"]


def test_flow_that_cannot_be_handed_over_ends_its_worker(videos: Path, tmp_path: Path, marks: Path) -> None:
    """Of the last batch: nothing follows that would make the worker look at what became of it."""
    choice = TogetherChoice(Trouble(marks, lost_once="synth-00002"))
    wanted = asked(videos, tmp_path / "devices", choice, passes=1, chunk_videos=3)
    extract(wanted, LocalRunner(1, choice, ("fake:0",)), lambda event, tally: None, lambda plan, tally: None)
    assert (marks / "lost").exists()
    run_here(asked(videos, tmp_path / "here", choice, passes=1, chunk_videos=3))
    assert digests(tmp_path / "devices") == digests(tmp_path / "here")


@pytest.mark.parametrize("kills", [STARTS - 1, STARTS])
def test_decoders_that_are_killed_before_they_are_ready_are_started_again(videos: Path, kills: int) -> None:
    """As by a kernel short of memory; a few in a row are no reason to end a run of days."""
    settings, arena = Settings("folder", {}, **SMALL), Arena()
    arena.grow(layout_of(settings).size)
    pool, answers = DecodingPool(arena, 1), list[DecodeHeader | DecodeRefusal]()
    killed: set[int] = set()
    try:
        pool.submit(
            DecodeTask(Video("a", videos / "synth-00000.mp4", "file"), [0], settings, [0], 60.0, answers.append)
        )
        until = time.monotonic() + 60

        def serve() -> None:
            while not answers and time.monotonic() < until:
                for child in pool.children:
                    if len(killed) < kills and child.process.pid not in killed:
                        killed.add(child.process.pid)
                        os.kill(child.process.pid, signal.SIGKILL)
                    pool.heard(child)
                pool.expire()
                time.sleep(0.005)

        if kills == STARTS:
            with pytest.raises(ExtractionError, match="the decoding process does not start"):
                serve()
        else:
            serve()
            assert isinstance(answers[0], DecodeHeader) and len(killed) == kills
    finally:
        pool.close()


def test_a_decoder_that_is_killed_counts_as_killed_however_late_the_system_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its socket closes before its status is known; taken for a crash, two kills would reject a healthy video."""
    settings, arena = Settings("folder", {}, **SMALL), Arena()
    arena.grow(layout_of(settings).size)
    pool, answers = DecodingPool(arena, 1), list[DecodeHeader | DecodeRefusal]()
    folder = tmp_path / "pipes"
    folder.mkdir()
    for number in range(5):
        os.mkfifo(folder / f"{number}.jpg")  # nobody writes: the decoder waits until it is killed
    killed: set[int] = set()

    def late(child: ChildProcess) -> None:
        process, waited = child.process, threading.Event()
        poll, wait = process.poll, process.wait

        def wait_for_it(timeout: float | None = None) -> int:
            waited.set()
            return wait(timeout)

        monkeypatch.setattr(process, "wait", wait_for_it)
        monkeypatch.setattr(process, "poll", lambda: poll() if waited.is_set() else None)

    try:
        pool.submit(DecodeTask(Video("a", folder, "frames", 24.0), [0], settings, [0], 60.0, answers.append))
        until = time.monotonic() + 60
        while not answers and time.monotonic() < until:
            for child in pool.children:
                if child.videos and child.process.pid not in killed:
                    killed.add(child.process.pid)
                    late(child)
                    os.kill(child.process.pid, signal.SIGKILL)
                pool.heard(child)
            time.sleep(0.005)
    finally:
        pool.close()
    assert isinstance(answers[0], DecodeRefusal) and len(killed) == TRIES_WHEN_KILLED

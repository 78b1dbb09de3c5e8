"""The parent's end of a worker's pipe: messages whole or in pieces, and a parent that waits for neither half of a talk."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from pipeline.extract import crew as crew_module
from pipeline.extract.blame import FlowFailure
from pipeline.extract.crew import Crew, Death, Member, Order
from pipeline.extract.worker import FlowTask, StoredWindow, TaskDone
from pipeline.extract.worker_pipe import WorkerPipe
from pipeline.flow.estimator import choose
from pipeline.video.arena import Arena
from pipeline.video.datasets import Video
from pipeline.video.messages import WindowFrames, framed
from shards.schema import Settings
from tests.pipeline.extract.small_extraction import SMALL

ANSWER = TaskDone((FlowFailure("x" * 100_000),))


@pytest.fixture(autouse=True)
def ended_when_it_waits() -> Iterator[None]:
    """A parent that waits for ever ends its test instead."""

    def complain(*_: object) -> None:
        raise TimeoutError("the parent waits for its worker")

    before = signal.signal(signal.SIGALRM, complain)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def answers_half(connection: Connection) -> None:
    connection.recv()
    message = framed(pickle.dumps(ANSWER))
    os.write(connection.fileno(), message[: len(message) // 2])
    time.sleep(600)


def takes_nothing(connection: Connection) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@dataclass
class OneWorker:
    """A crew of one, whose worker is no real one."""

    crew: Crew
    member: Member
    deaths: list[Death] = field(default_factory=list)

    def give(self, size: int) -> None:
        """A task that takes so many bytes."""
        frames = WindowFrames(2, 0.1, (0, 1, 3, 4), (0.0, 0.0, 0.2, 0.2))
        window = StoredWindow(Video("v" * size, Path("x.mp4"), "file"), 0, frames, 0)
        task = FlowTask(Settings("folder", {}, **SMALL), (window,))
        self.crew.submit(Order(task, lambda done: None, lambda order, death: self.deaths.append(death)))


@pytest.fixture
def hired(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Connection], None]], OneWorker]]:
    context, crew = get_context("fork"), Crew([choose("dis")], Arena(), Arena(), threads=1, depth=2)

    def start(work: Callable[[Connection], None]) -> Member:
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs,))
        process.start()
        theirs.close()
        return Member(process, WorkerPipe(ours), choose("dis"), ready=True)

    def hire(work: Callable[[Connection], None]) -> OneWorker:
        monkeypatch.setattr(crew, "_start", lambda choice: start(work))  # another of the kind for one that has died
        crew.members = [member := start(work)]
        return OneWorker(crew, member)

    yield hire
    crew.close()


@pytest.mark.parametrize(("work", "size"), [(answers_half, 9), (takes_nothing, 9), (takes_nothing, 4 << 20)])
def test_a_worker_that_stops_in_the_middle_of_a_talk_is_ended_when_its_time_is_up(
    hired: Callable[[Callable[[Connection], None]], OneWorker],
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[Connection], None],
    size: int,
) -> None:
    one = hired(work)
    one.give(size)
    one.crew.successes = 1
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        one.crew.heard(one.member)
        one.crew.expire()
        time.sleep(0.01)
    assert one.member.process.is_alive() and not one.deaths, "it has its time"
    assert one.member.pipe.waits_for_room == (size > 9)
    monkeypatch.setattr(crew_module, "ANSWER_LEAST_S", 0.4)
    one.crew.expire()
    assert one.member.process.exitcode == -signal.SIGKILL and one.crew.members != [one.member]
    assert [death.hung_s > 0.4 for death in one.deaths] == [True]


def test_messages_arrive_whole_however_they_are_cut_and_the_last_is_heard_before_the_end() -> None:
    ours, theirs = get_context("fork").Pipe()
    pipe = WorkerPipe(ours)
    words = [b"", b"a", b"b" * 70_000]
    stream = b"".join(map(framed, words))
    assert pipe.hear() is None
    heard: list[bytes] = []

    def listen() -> None:
        while (message := pipe.hear()) is not None:
            heard.append(bytes(message))

    for start in range(0, len(stream), 30_001):
        os.write(theirs.fileno(), stream[start : start + 30_001])
        listen()
    assert heard == words
    for word in words:
        theirs.send_bytes(word)
    theirs.close()
    heard.clear()
    with pytest.raises(EOFError):
        listen()
    assert heard == words
    pipe.send(b"to nobody")
    assert not pipe.waits_for_room
    pipe.close()


def test_a_message_longer_than_there_is_room_for_is_sent_as_it_is_taken() -> None:
    ours, theirs = get_context("fork").Pipe()
    pipe, long = WorkerPipe(ours), bytes(range(256)) * 20_000
    pipe.send(long)
    pipe.send(b"next")
    assert pipe.waits_for_room
    taken = b""
    while pipe.waits_for_room:
        taken += os.read(theirs.fileno(), 1 << 16)
        pipe.go_on_sending()
    left = len(framed(long) + framed(b"next")) - len(taken)
    while left:
        taken += (piece := os.read(theirs.fileno(), 1 << 16))
        left -= len(piece)
    assert taken == framed(long) + framed(b"next")
    theirs.close()
    pipe.close()

"""Ctrl-C, which a terminal sends to every process of a command: workers that are starting say nothing of it, and are not forgotten."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

import pytest
from click.testing import CliRunner

from common.command import INTERRUPTED
from pipeline.cli import main
from pipeline.extract.crew import Crew
from pipeline.extract.termination import interrupts_wait
from pipeline.flow.estimator import choose
from pipeline.video.arena import Arena
from shards import schema
from shards.verify import verify
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import make_videos, request


@pytest.fixture
def crew() -> Iterator[Crew]:
    made = Crew([choose("dis")], Arena(), Arena(), threads=1, depth=2)
    yield made
    made.close()


def test_a_worker_that_is_interrupted_while_it_starts_says_nothing_and_works(
    crew: Crew, capfd: pytest.CaptureFixture[str]
) -> None:
    """It had ended with a traceback out of whatever it was importing."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    crew.start(1)
    member = crew.members[0]
    pid = member.process.pid
    assert pid is not None and signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before
    until = time.monotonic() + 60
    while not member.ready and member.process.is_alive() and time.monotonic() < until:
        os.kill(pid, signal.SIGINT)
        if wait([member.pipe.fileno()], 0.02):
            crew.heard(member)
    os.kill(pid, signal.SIGINT)
    assert crew.members == [member] and member.ready and member.process.is_alive()
    status = Path(f"/proc/{pid}/status").read_text()
    assert "SigBlk:\t0000000000000000" in status, "what it starts itself is not to inherit it"
    assert capfd.readouterr().err == ""


def test_an_interrupt_comes_once_the_worker_is_known(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody ends it."""
    start = crew._start

    def interrupted(choice: object) -> object:
        signal.raise_signal(signal.SIGINT)
        return start(choice)  # type: ignore[arg-type]

    monkeypatch.setattr(crew, "_start", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        crew.start(1)
    assert len(crew.members) == 1 and signal.getsignal(signal.SIGINT) is handler


def test_a_signal_that_another_thread_takes_waits_as_well() -> None:
    """The kernel gives it to any thread that does not block it; Python handles it in the main one."""
    done = False
    with pytest.raises(KeyboardInterrupt), interrupts_wait():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # as that other thread has it
        signal.raise_signal(signal.SIGINT)
        done = True
    assert done


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_page_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of shards had been there without the page."""
    run_here(request(make_videos(tmp_path / "videos", 1), tmp_path / "set"))
    monkeypatch.setattr("pipeline.inspect.set_page.set_page", interrupt)
    ended = CliRunner().invoke(main, ["inspect", str(tmp_path / "set"), "--page", str(tmp_path / "page")])
    assert (ended.exit_code, ended.stderr) == (INTERRUPTED, "interrupted\n")
    assert not (tmp_path / "page").exists()


def test_an_interrupt_while_the_index_is_written_ends_the_run_and_a_rerun_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, out = make_videos(tmp_path / "videos", 1), tmp_path / "set"
    sizes = ["--image-size", "64", "--flow-size", "32", "--chunk-videos", "2", "--passes", "2", "--workers", "1"]
    command = ["extract", "--dataset", "folder", "--root", str(videos), "--out", str(out), *sizes]
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.extract.run.finalize", interrupt)
        ended = CliRunner().invoke(main, command)
    assert ended.exit_code == INTERRUPTED and "writing the index of up to 2 samples" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("interrupted: chunks that have landed are safe")
    assert not (out / schema.MANIFEST).exists()
    assert CliRunner().invoke(main, command).exit_code == 0 and verify(out, deep=True) == []

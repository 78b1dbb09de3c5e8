"""Locks between machines: one at a time through the gate, the dead make room, the living are never mistaken for dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from common import lease as lease_module
from common.command import PlainError
from common.holder import Holder
from common.lease import Leases, Life
from tests.module_graph import ROOT

ELSEWHERE = Holder("part 1/2", "far", 7, "another boot", "1")

COUNT = """
import sys, time
from pathlib import Path
from common.lease import Leases
counter = Path(sys.argv[2])
with Leases(Path(sys.argv[1])) as leases:
    for _ in range(15):
        with leases.gate():
            seen = int(counter.read_text())
            time.sleep(0.001)
            counter.write_text(str(seen + 1))
"""
HOLD = """
import sys, time
from pathlib import Path
from common.lease import Leases
with Leases(Path(sys.argv[1])) as leases:
    leases.take("part", "a run")
    with leases.gate():
        print("held", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Leases]:
    """With a short life, so that a death elsewhere is soon believed."""
    monkeypatch.setattr(lease_module, "BEAT_S", 0.02)
    monkeypatch.setattr(lease_module, "LEASE_S", 0.5)
    with Leases(tmp_path / "locks") as found:
        yield found


def write(leases: Leases, name: str, holder: Holder, count: int) -> None:
    """A lease as another machine would write it."""
    (leases.directory / name).write_text(f"{count:012d} {json.dumps(asdict(holder))}\n")


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_one_process_at_a_time_is_inside_the_gate(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    running = [python(COUNT, tmp_path / "locks", tmp_path / "counter") for _ in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    assert (tmp_path / "counter").read_text() == "60"
    assert len(os.listdir(tmp_path / "locks")) == 1, "old gates are removed"


def test_one_thread_at_a_time_is_inside_the_gate(leases: Leases) -> None:
    inside: list[int] = []

    def pass_through() -> None:
        for _ in range(10):
            with leases.gate():
                inside.append(1)
                assert sum(inside) == 1
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=pass_through) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_what_a_killed_process_of_this_machine_held_is_free_at_once(tmp_path: Path) -> None:
    process = python(HOLD, tmp_path / "locks")
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with Leases(tmp_path / "locks") as leases:
        (held,) = leases.others().values()
        assert held[1] is Life.LIVES and f"a run, process {process.pid} on " in str(held[0])
        process.send_signal(signal.SIGSTOP)  # one that stands still lives
        assert next(iter(leases.others().values()))[1] is Life.LIVES
        process.kill()
        while next(iter(leases.others().values()))[1] is not Life.DEAD:
            time.sleep(0.01)  # nobody has asked after it yet: a zombie is dead
        with leases.gate():
            pass
    process.wait()


def test_a_process_number_that_is_used_again_is_somebody_else() -> None:
    mine = Holder.here("a run")
    assert mine.lives() is True and replace(mine, started="1").lives() is False
    assert replace(mine, place="another boot").lives() is None and replace(mine, place="").lives() is None


def test_a_machine_that_is_not_this_one_is_watched(leases: Leases) -> None:
    write(leases, "part-a", ELSEWHERE, 0)
    write(leases, "part-b", ELSEWHERE, 0)
    assert [life for _, life in leases.others().values()] == [Life.UNKNOWN] * 2
    counts = iter(range(1, 1000))
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.05):
            write(leases, "part-b", ELSEWHERE, next(counts))

    beating = threading.Thread(target=beat)
    beating.start()
    leases.settle(lambda name: name == "part-b")
    assert leases.others()["part-b"][1] is Life.LIVES
    leases.settle(lambda name: True)
    found = leases.others()
    assert (found["part-a"][1], found["part-b"][1]) == (Life.DEAD, Life.LIVES)
    stop.set()
    beating.join()
    while leases.others()["part-b"][1] is Life.LIVES:
        time.sleep(0.02)
    assert leases.others()["part-b"][1] is Life.DEAD, "it lived once, and has stood still since"


@pytest.mark.parametrize("content", ["", "000000000003 {", '000000000003 {"pid": 3}'])
def test_a_file_that_says_nothing_is_given_time(leases: Leases, content: str) -> None:
    """It may have been created and not yet written."""
    (leases.directory / "part-x").write_text(content)
    assert leases.others()["part-x"] == (None, Life.UNKNOWN)
    leases.settle(lambda name: True)
    assert leases.others()["part-x"] == (None, Life.DEAD)


def test_the_gate_of_a_dead_machine_is_passed_in_the_end(leases: Leases) -> None:
    write(leases, "gate-000041", ELSEWHERE, 3)
    began = time.monotonic()
    with leases.gate():
        assert time.monotonic() - began >= 0.5
        assert "gate-000042" in os.listdir(leases.directory)


def test_who_was_slow_at_the_gate_tries_again(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    """It saw a dead holder; others have gone on since, and its number is free again because they have tidied up."""
    write(leases, "gate-000007", ELSEWHERE, 3)
    highest, seen = leases._highest_gate, iter([2])
    monkeypatch.setattr(leases, "_passable", lambda name: name == "gate-000002" or type(leases)._passable(leases, name))
    monkeypatch.setattr(leases, "_highest_gate", lambda: next(seen, None) or highest())
    with leases.gate():
        assert sorted(os.listdir(leases.directory)) == ["gate-000008"]


def test_a_lease_that_was_taken_away_is_noticed(leases: Leases) -> None:
    mine = leases.take("part-1-of-2", "part 1/2")
    mine.check()
    time.sleep(0.1)
    mine.check()
    leases.remove(mine.path.name)
    with pytest.raises(PlainError, match=r"could not be kept alive for 0\.5 s, so another machine may have taken over"):
        for _ in range(100):
            time.sleep(0.02)
            mine.check()


def test_a_lease_that_cannot_be_written_counts_as_lost_after_its_time(
    leases: Leases, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mine = leases.take("part-1-of-2", "part 1/2")

    def stale(count: bytes) -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(mine, "_put", stale)
    mine.check()
    with pytest.raises(PlainError, match="could not be kept alive"):
        for _ in range(100):
            time.sleep(0.02)
            mine.check()
    assert "Stale file handle" in caplog.text
    monkeypatch.undo()


def test_a_gate_that_was_left_is_not_kept_alive(leases: Leases) -> None:
    for _ in range(20):
        with leases.gate():
            time.sleep(0.005)
        (left,) = leases.directory.iterdir()
        assert left.read_bytes().startswith(b"free")

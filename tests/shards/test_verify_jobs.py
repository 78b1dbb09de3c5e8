"""Deep verification in several processes: the same findings in the same order, progress to the end, and no silence where one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shards import verify_samples
from shards.reader import ShardSet
from shards.schema import ShardSetError
from shards.verify import verify


def _flip(root: Path, shard: str, sample: str, member: int) -> None:
    data = ShardSet(root)
    at = data.members(data.keys.index(sample))[member].offset + 40
    raw = bytearray((root / shard).read_bytes())
    raw[at] ^= 0x10
    (root / shard).write_bytes(bytes(raw))


def test_several_processes_find_what_one_finds(shard_set: Path) -> None:
    _flip(shard_set, "pass-01/000001.tar", "000001-01-0001", 0)
    _flip(shard_set, "pass-00/000000.tar", "000000-00-0000", 1)
    alone = verify(shard_set, deep=True)
    assert sum("000001-01-0001" in str(p) for p in alone) and sum("000000-00-0000" in str(p) for p in alone)
    assert verify(shard_set, deep=True, jobs=3) == alone


@pytest.mark.parametrize("deep", [False, True])
def test_progress_goes_to_the_end_of_hashing_and_of_decoding(shard_set: Path, deep: bool) -> None:
    told: list[tuple[int, int]] = []
    assert verify(shard_set, deep=deep, jobs=2, progress=lambda done, of: told.append((done, of))) == []
    assert told == [(n + 1, 4) for n in range(4)] * (1 + deep)


def test_only_damaged_shards_count_where_nothing_else_is_decoded(shard_set: Path) -> None:
    _flip(shard_set, "pass-01/000001.tar", "000001-01-0001", 0)
    told: list[tuple[int, int]] = []
    assert verify(shard_set, progress=lambda done, of: told.append((done, of)))
    assert told[4:] == [(1, 1)]


def test_a_killed_process_is_told(shard_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.getpid()

    def die(*_: object) -> list[verify_samples.Problem]:
        assert os.getpid() != parent, "in a process of its own"
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    monkeypatch.setattr(verify_samples, "_sample", die)
    with pytest.raises(ShardSetError, match=r"was killed.*use fewer --jobs"):
        verify(shard_set, deep=True, jobs=2)


WAITING = """
import os, sys, time
from pathlib import Path
from shards import verify_samples
from shards.verify import verify

def wait(data, i, shard):
    Path(sys.argv[2], str(os.getpid())).touch()
    time.sleep(600)

verify_samples._sample = wait
verify(sys.argv[1], deep=True, jobs=2)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
def test_processes_do_not_outlive_a_parent_that_was_killed(shard_set: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    marks = tmp_path / "marks"
    marks.mkdir()
    parent = subprocess.Popen([sys.executable, "-c", WAITING, str(shard_set), str(marks)], env=environment)
    try:
        _until(lambda: len(list(marks.iterdir())) == 2)
    finally:
        parent.kill()
        parent.wait()
    pids = [int(mark.name) for mark in marks.iterdir()]
    _until(lambda: not any(_lives(pid) for pid in pids))


def _until(so: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not so():
        assert time.monotonic() < end
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_no_process_at_all_is_refused(shard_set: Path) -> None:
    with pytest.raises(ValueError, match="jobs is 0"):
        verify(shard_set, deep=True, jobs=0)


def test_an_interrupt_does_not_reach_a_process_before_it_is_set_up(
    shard_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had ended with a traceback; the parent, which ends the pool, hears the interrupt."""
    set_up = verify_samples._inherit

    def note(*arguments: object) -> None:
        held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        (tmp_path / str(os.getpid())).write_text(str(signal.SIGINT in held))
        set_up(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(verify_samples, "_inherit", note)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert verify(shard_set, deep=True, jobs=2) == []
    assert {path.read_text() for path in tmp_path.iterdir() if path.name.isdecimal()} == {"True"}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before

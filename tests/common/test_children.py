"""Child processes: how they end is told, slots bound them, nobody outlives the block, a lock is theirs too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common import children
from common.children import Children, Ended, Slot, Task, slots, threads_each
from common.command import PlainError
from common.lock import directory_lock
from common.parent_death import signal_with_parent


def task(tmp_path: Path, code: str, name: str = "one") -> Task:
    return Task(name, (sys.executable, "-c", code), tmp_path / f"{name}.err", tmp_path / f"{name}.out")


def run(tmp_path: Path, code: str, place: Slot | None = None) -> Ended:
    with Children([place or Slot()]) as some:
        some.start(task(tmp_path, code))
        assert some.free == 0
        while True:
            for end in some.ended():
                return end
            time.sleep(0.01)


def test_output_and_status_come_back(tmp_path: Path) -> None:
    end = run(tmp_path, "import sys; print('figures'); print('progress', file=sys.stderr)")
    assert (end.status, end.reason) == (0, "")
    assert (tmp_path / "one.out").read_text() == "figures\n" and (tmp_path / "one.err").read_text() == "progress\n"


def test_a_failure_is_its_last_line(tmp_path: Path) -> None:
    end = run(tmp_path, "import sys; print('a word', file=sys.stderr); sys.exit('Error: no such set\\n')")
    assert (end.status, end.reason) == (1, "no such set")
    assert "without a word" in run(tmp_path, "raise SystemExit(7)").reason


def test_a_killed_child_names_the_signal(tmp_path: Path) -> None:
    assert run(tmp_path, "import os; os.kill(os.getpid(), 9)").reason == "killed by SIGKILL"


def test_nobody_outlives_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "KILL_AFTER_S", 0.3)
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    with pytest.raises(RuntimeError, match="from the block"), Children([Slot(), Slot()]) as some:
        some.start(task(tmp_path, stubborn, "stubborn"))
        some.start(task(tmp_path, "import time; time.sleep(60)", "meek"))
        while not (tmp_path / "stubborn.out").read_text():
            time.sleep(0.01)
        processes = [process for _, _, process in some._running]
        raise RuntimeError("from the block")
    assert sorted(process.returncode for process in processes) == [-15, -9]


def test_one_slot_per_gpu_or_as_many_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slots(0, use_gpus=False) == [Slot()] and len(slots(3, use_gpus=False)) == 3
    monkeypatch.setattr(children, "visible_gpus", lambda: ["2", "5"])
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in slots(0, use_gpus=True)] == ["2", "5"]
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in slots(3, use_gpus=True)] == ["2", "5", "2"]
    assert len(slots(2, use_gpus=False)) == 2
    assert threads_each(slots(0, use_gpus=True)) == 0


def test_visible_gpus_keep_the_names_they_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-abc")
    assert children.visible_gpus() == ["3", "GPU-abc"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert children.visible_gpus() == ["0", "1"]


def test_the_slots_environment_reaches_the_child(tmp_path: Path) -> None:
    place = Slot({"CUDA_VISIBLE_DEVICES": "7"})
    run(tmp_path, "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])", place)
    assert (tmp_path / "one.out").read_text() == "7\n"


def test_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children.os, "sched_getaffinity", lambda _: set(range(9)), raising=False)
    assert threads_each([Slot()] * 2) == 4 and threads_each([Slot()] * 20) == 1


def test_a_directory_is_locked_while_a_child_lives(tmp_path: Path) -> None:
    """The child of a command that was killed outright still holds what it inherited."""
    with directory_lock(tmp_path, "a sweep") as held:
        with pytest.raises(PlainError, match="a sweep is already at work"), directory_lock(tmp_path, "a sweep"):
            pass
        some = Children([Slot()], held=held)
        some.start(task(tmp_path, "import time; time.sleep(60)"))
    with pytest.raises(PlainError, match="last child"), directory_lock(tmp_path, "a sweep"):
        pass
    some.__exit__(None, None, None)
    with directory_lock(tmp_path, "a sweep"):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="children learn of their parent's death on Linux only")
def test_a_parent_that_ends_before_its_child_has_asked_to_be_told(tmp_path: Path) -> None:
    """Between fork and the request nobody is told: the child finds that its parent is another one now."""
    told = signal_with_parent(signal.SIGTERM, parent_pid=os.getpid() + 1)
    before = signal.getsignal(signal.SIGTERM)
    for handler in (signal.SIG_DFL, signal.default_int_handler):  # the starter's own, which the program never knows
        signal.signal(signal.SIGTERM, handler)
        try:
            other = subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn=told, timeout=30)
        finally:
            signal.signal(signal.SIGTERM, before)
        assert other.returncode == -signal.SIGTERM
    ours = signal_with_parent(signal.SIGTERM, parent_pid=os.getpid())
    assert subprocess.run([sys.executable, "-c", "pass"], preexec_fn=ours).returncode == 0

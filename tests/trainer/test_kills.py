"""A training that is killed without warning, again and again, ends with the bits of the one that was left alone.

FLOWFEAT_KILLS sets how often each run is killed (2); a longer loop: FLOWFEAT_KILLS=40 python -m pytest tests/trainer/test_kills.py
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.trainer.runs import assert_equal, final_state, lines, run
from trainer import train as train_module
from trainer.checkpoint import checkpoints
from trainer.loader import LoaderError

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("FLOWFEAT_KILLS", "2"))
STEPS = 4 + 3 * KILLS
SETTINGS = (f"train.steps={STEPS}", "log.checkpoint_every=2", "data.holdout=0.2", "log.holdout_every=3")


@pytest.fixture(scope="module")
def forks() -> Any:
    """Processes forked from one that has imported everything, has computed nothing and has no threads."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.trainer.runs", "trainer.train"])
    return context


@pytest.fixture(scope="module")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run(shards, out, *SETTINGS)
    return out


def train_on(shards: Path, out: Path, workers: int) -> None:
    run(shards, out, *SETTINGS, f"data.workers={workers}", resume=(out / "config.toml").exists())


def kill_somewhere(process: BaseProcess, out: Path, steps_before: int, wait: random.Random) -> list[psutil.Process]:
    """Kill it some steps and some moments further on; returns the workers it had."""
    wanted, end = steps_before + wait.randint(1, 3), time.monotonic() + 120
    while process.is_alive() and time.monotonic() < end:
        if (out / "log.jsonl").exists() and len(lines(out, "step")) >= wanted:
            break
        time.sleep(0.01)
    time.sleep(wait.uniform(0, 0.05))
    assert process.pid is not None
    workers = psutil.Process(process.pid).children() if process.is_alive() else []
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return workers


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_killed_at_random_steps_it_ends_with_the_same_bits(
    workers: int, forks: Any, shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, wait = tmp_path / "run", random.Random(workers)
    killed = 0
    for attempt in range(KILLS + 1):
        process = forks.Process(target=train_on, args=(shards, out, workers))
        process.start()
        if attempt == KILLS:
            process.join()
            assert process.exitcode == 0
            break
        before = len(lines(out, "step")) if (out / "log.jsonl").exists() else 0
        orphans = kill_somewhere(process, out, before, wait)
        killed += process.exitcode == -signal.SIGKILL
        assert not [p for p in psutil.wait_procs(orphans, timeout=20)[1] if p.status() != psutil.STATUS_ZOMBIE]
    assert killed == KILLS
    assert_equal(final_state(out), final_state(undisturbed))
    assert {line["step"]: line["loss"] for line in lines(out, "step")} == {
        line["step"]: line["loss"] for line in lines(undisturbed, "step")
    }
    held_out = [[(h["step"], h["loss"]) for h in lines(folder, "holdout")] for folder in (out, undisturbed)]
    assert set(held_out[0]) == set(held_out[1])
    assert [p.name for p in checkpoints(out)] == [p.name for p in checkpoints(undisturbed)]


@pytest.fixture
def worker_killer(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Kills a loader worker before the third batch is looked at; holds the pids of those killed."""
    on_device, killed = train_module.on_device, []

    def watched(loader: Any, *args: Any) -> Any:
        for number, batch in enumerate(on_device(loader, *args)):
            if number == 2:
                killed.append(loader.processes[1].pid)
                os.kill(loader.processes[1].pid, signal.SIGKILL)
            yield batch

    monkeypatch.setattr(train_module, "on_device", watched)
    yield killed


def test_a_killed_loader_worker_ends_the_run_in_one_line_and_resume_loses_nothing(
    shards: Path, undisturbed: Path, tmp_path: Path, worker_killer: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with pytest.raises(
        LoaderError, match=r"loader worker 1 .* was killed by signal 9 .*continue the run with --resume$"
    ):
        run(shards, out, *SETTINGS, "data.workers=2", "data.prefetch_batches=1")
    assert len(worker_killer) == 1 and lines(out, "error")[0]["kind"] == "LoaderError"
    assert final_state(out)["step"] == 2 and not (out / "flowfeat.pth").exists()
    monkeypatch.undo()
    run(shards, out, *SETTINGS, resume=True)
    assert_equal(final_state(out), final_state(undisturbed))

"""Real trainings under a sweep: killed, interrupted, orphaned; what continues is bit-equal to what was never disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from common.lock import directory_lock
from tests.trainer.sweep.small_sweep import HEAD, log_lines, write_sweep
from tests.trainer.training_set import write_training_set
from trainer.checkpoint import checkpoints, load
from trainer.config import load_config
from trainer.sweep.record import read_record
from trainer.sweep.run_state import read_state
from trainer.train import train

ROOT = Path(__file__).resolve().parents[3]
ENDLESS = 1_000_000
TWO_ROWS = (
    HEAD.replace("[0, 1]", "[0]").replace("every = 1,", "every = 1, checkpoint_every = 4,")
    + '[[rows]]\nname = "full"\n[[rows]]\nname = "L2"\nsettings = { "loss.flow_kind" = "l2" }\n'
)
SWEEP_COMMAND = (sys.executable, "-m", "trainer", "sweep")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_set(tmp_path_factory.mktemp("data") / "set")


def arguments(root: Path, shards: Path, steps: int) -> tuple[str, ...]:
    file = write_sweep(root / "two.toml", TWO_ROWS.replace("steps = 6", f"steps = {steps}"))
    return (*SWEEP_COMMAND, str(file), "--shards", str(shards), "--out", str(root / "out"), "--jobs", "2")


def finish(root: Path, shards: Path) -> subprocess.CompletedProcess[str]:
    """The same sweep again, now with an end a little after what has been reached."""
    reached = max(read_state(directory).step for directory in run_directories(root))
    return subprocess.run(arguments(root, shards, reached + 2), cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def begun(tmp_path: Path, shards: Path) -> Iterator[subprocess.Popen[str]]:
    """A sweep whose two children are past their first checkpoints."""
    process = subprocess.Popen(
        arguments(tmp_path, shards, ENDLESS),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(lambda: all(checkpoints(directory) for directory in run_directories(tmp_path)))
        yield process
    finally:
        process.kill()
        process.communicate()


def run_directories(root: Path) -> list[Path]:
    return [root / "out" / "rows" / row / "seed-0" for row in ("full", "L2")]


def wait_for(condition: Callable[[], bool], deadline_s: float = 120) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def children_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [child for child in psutil.Process(process.pid).children() if "train" in child.cmdline()]


def assert_undisturbed(root: Path, row: str) -> None:
    """The row's run ended as one that was never disturbed."""
    directory = root / "out" / "rows" / row / "seed-0"
    train(load_config(directory / "config.toml"), root / "straight" / row, console=False)
    ours, theirs = (load(checkpoints(base)[-1]) for base in (directory, root / "straight" / row))
    assert ours["step"] == theirs["step"]
    assert all(torch.equal(tensor, theirs["model"][key]) for key, tensor in ours["model"].items())


def test_a_killed_training_is_named_and_continued(begun: subprocess.Popen[str], tmp_path: Path, shards: Path) -> None:
    full, l2 = run_directories(tmp_path)
    victim = next(child for child in children_of(begun) if str(full) in child.cmdline())
    victim.kill()
    wait_for(lambda: read_record(tmp_path / "out").rows[0].runs[0].error == "killed by SIGKILL")
    before = read_state(l2).step
    wait_for(lambda: read_state(l2).step > before)  # the other row goes on
    begun.send_signal(signal.SIGINT)
    _, errors = begun.communicate(timeout=120)
    assert begun.returncode == 130 and "full, seed 0: killed by SIGKILL" in errors
    again = finish(tmp_path, shards)
    assert again.returncode == 0 and "2 trained, 0 were trained before, 0 failed" in again.stdout, again.stderr
    start = log_lines(full, "start")[1]
    assert start["resumed"] is True and isinstance(start["step"], int) and start["step"] >= 4
    assert_undisturbed(tmp_path, "full")


def test_an_interrupt_saves_and_the_same_command_continues(
    begun: subprocess.Popen[str], tmp_path: Path, shards: Path
) -> None:
    os.killpg(begun.pid, signal.SIGINT)  # as the keyboard does: to everyone in the terminal's foreground
    _, errors = begun.communicate(timeout=120)
    assert begun.returncode == 130 and "the same command continues" in errors and "Traceback" not in errors
    for directory in run_directories(tmp_path):
        stop = log_lines(directory, "stop")[-1]
        assert stop["reason"] == "interrupted" and load(checkpoints(directory)[-1])["step"] == stop["step"]
    assert finish(tmp_path, shards).returncode == 0
    assert_undisturbed(tmp_path, "L2")


@pytest.mark.skipif(sys.platform != "linux", reason="children learn of their parent's death on Linux only")
def test_no_training_outlives_a_killed_sweep(begun: subprocess.Popen[str], tmp_path: Path) -> None:
    """Whether they still save is not promised; that nobody trains on in the directory is."""
    children = children_of(begun)
    assert len(children) == 2
    os.kill(begun.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    with directory_lock(tmp_path / "out", "a sweep"):
        pass


def test_a_sweep_that_names_nothing_wrong_begins_and_others_do_not(tmp_path: Path, shards: Path) -> None:
    file = write_sweep(tmp_path / "bad.toml", TWO_ROWS.replace("flow_kind", "flow_kid"))
    done = subprocess.run(
        (*SWEEP_COMMAND, str(file), "--shards", str(shards)), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "row 'L2': unknown setting 'loss.flow_kid'; did you mean loss.flow_kind" in done.stderr


def test_no_row_can_reach_a_flow_network() -> None:
    """All that a sweep imports, in a fresh interpreter: nothing of stage 1 is among it."""
    code = (
        "import sys, trainer.cli, trainer.train, trainer.sweep.command, trainer.sweep.run_sweep, trainer.sweep.view\n"
        "sys.exit(any(name.split('.')[0] in ('pipeline', 'probes') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0

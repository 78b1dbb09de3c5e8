"""Signals and kills: what is saved, and that the continuation is exact."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from common.command import PlainError
from tests.trainer.runs import TINY, assert_equal, final_state, lines, run

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A training process of its own group, which does not outlive the block whatever happens in it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_step(out: Path, step: int, deadline_s: float = 300) -> None:
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if (out / "log.jsonl").exists() and len(lines(out, "step")) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"no step {step} within {deadline_s} s")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_saves_and_resume_continues_exactly(shards: Path, tmp_path: Path, number: int) -> None:
    out = tmp_path / "run"
    arguments = ("train", "--shards", str(shards), "--out", str(out), *TINY, "data.workers=2", "train.steps=1000000")
    with started(*arguments) as process:
        wait_for_step(out, 3)
        with pytest.raises(PlainError, match="a training is already at work"):
            run(shards, out, "train.steps=1000000", resume=True)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 130 and "Traceback" not in errors and "--resume" in errors
    reached = final_state(out)["step"]
    assert lines(out, "stop")[0]["reason"] == "interrupted" and reached >= 3
    run(shards, out, f"train.steps={reached + 2}", resume=True)
    run(shards, tmp_path / "straight", f"train.steps={reached + 2}")
    assert_equal(final_state(out), final_state(tmp_path / "straight"))


def test_kill_without_warning_loses_at_most_the_steps_since_the_checkpoint(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ("train", "--shards", str(shards), "--out", str(out), *TINY, "train.steps=1000000")
    with started(*arguments, "log.checkpoint_every=2"):
        wait_for_step(out, 7)
    step = final_state(out)["step"]
    assert step >= 6 and step % 2 == 0
    run(shards, out, f"train.steps={step + 1}", resume=True)
    run(shards, tmp_path / "straight", f"train.steps={step + 1}")
    assert_equal(final_state(out), final_state(tmp_path / "straight"))

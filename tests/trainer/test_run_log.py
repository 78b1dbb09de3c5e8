"""What a run says while it trains: TensorBoard's curves over a resume, the time left, what a resume changes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.trainer.runs import assert_equal, config_for, final_state, lines, run
from tests.trainer.training_set import write_training_set
from trainer.config import FREE_ON_RESUME, ROUNDING_ON_RESUME, changed_settings, flatten, load_config, rounding_changes
from trainer.pictures import HEADING_PX, LEGEND_PX
from trainer.run_log import RunLog
from trainer.train import train


def curve(run_dir: Path, tag: str = "loss") -> list[int]:
    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return [event.step for event in events.Scalars(tag)]


def test_a_resume_loses_no_point_of_a_curve(shards: Path, tmp_path: Path) -> None:
    """The checkpoint's own step was logged before it was written; it is not repeated, so it must not be purged."""
    run(shards, tmp_path / "run", "train.steps=3", "log.tensorboard=true")
    run(shards, tmp_path / "run", "train.steps=5", "log.tensorboard=true", resume=True)
    assert curve(tmp_path / "run") == [1, 2, 3, 4, 5]


def test_steps_that_are_repeated_after_a_kill_appear_once(tmp_path: Path) -> None:
    facts = {"loss": 1.0, "samples_per_s": 1.0, "data_wait_share": 0.0, "skipped": 0}
    with RunLog(tmp_path, steps=6, first_step=0, console=False) as log:
        for step in range(1, 5):
            log.step(step, facts)
    with RunLog(tmp_path, steps=6, first_step=2, console=False) as log:
        for step in range(3, 7):
            log.step(step, facts)
    assert curve(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_plain_lines_tell_the_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a step takes 40 s: the time left is total work over mean rate since the start."""
    clock = [0.0]
    monkeypatch.setattr("common.progress.time.perf_counter", lambda: clock[0])
    facts = {"loss": 0.5, "loss_grad": 0.4, "samples_per_s": 0.2, "data_wait_share": 0.01, "skipped": 2}
    with RunLog(tmp_path, steps=100, first_step=10, tensorboard=False) as log:
        for step in (11, 12):
            clock[0] += 40
            log.reached(step)
        log.step(12, facts)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("12/100 steps, 40 s each, 58:40 left, loss 0.5000 (grad 0.4000), 0.2 samples/s")
    assert "1% waiting for data" in line and "2 unreadable" in line


def test_between_distant_log_steps_long_steps_tell_the_time_left_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("common.progress.time.perf_counter", lambda: clock[0])
    with RunLog(tmp_path, steps=10, first_step=0, tensorboard=False) as log:
        for step in range(1, 8):
            clock[0] += 50
            log.reached(step)
    assert capsys.readouterr().err.splitlines() == [
        "3/10 steps, 50 s each, 5:50 left",
        "6/10 steps, 50 s each, 3:20 left",
    ]


def test_a_terminal_shows_the_time_left_at_any_step_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, shown = [0.0], io.StringIO()
    monkeypatch.setattr("common.progress.time.perf_counter", lambda: clock[0])
    terminal = Console(file=shown, force_terminal=True, width=120)
    monkeypatch.setattr("trainer.run_log.Console", lambda **_: terminal)
    for seconds, left in ((0.01, "0:00 left"), (300.0, "20:00 left")):
        with RunLog(tmp_path, steps=5, first_step=0, tensorboard=False) as log:
            clock[0] += seconds
            log.reached(1)
            assert left in log._progress.line()
    assert "20:00 left" in shown.getvalue()


OTHER_SETTINGS: dict[str, Any] = {
    "data.workers": 2,
    "data.prefetch_batches": 2,
    "data.timeout_s": 60.0,
    "data.max_failed_share": 0.9,
    "data.allow_partial": "true",
    "train.steps": 8,
    "train.max_minutes": 50.0,
    "teacher.export": "true",
    "log.every": 3,
    "log.pictures_every": 4,
    "log.checkpoint_every": 2,
    "log.keep_checkpoints": 4,
    "log.holdout_every": 2,
    "log.holdout_batches": 3,
    "log.tensorboard": "true",
}


def test_settings_that_a_resume_may_change_never_change_the_arithmetic(shards: Path, tmp_path: Path) -> None:
    copy = write_training_set(tmp_path / "moved")
    changed = [f"{key}={value}" for key, value in OTHER_SETTINGS.items()]
    untested = {"data.shards", "encoder.weights"}  # the set moves below; weights are in the checkpoint, not read again
    assert set(OTHER_SETTINGS) | untested == FREE_ON_RESUME
    plain, other = flatten(config_for(shards)), flatten(config_for(copy, *changed))
    assert {key for key in plain if plain[key] != other[key]} == FREE_ON_RESUME - {"encoder.weights"}
    run(shards, tmp_path / "run", "train.steps=3")
    run(copy, tmp_path / "run", *changed, resume=True)
    run(shards, tmp_path / "straight", "train.steps=8")
    assert_equal(final_state(tmp_path / "run"), final_state(tmp_path / "straight"))
    assert not lines(tmp_path / "run", "rounding_changed")


def test_settings_that_change_rounding_are_announced(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_num_threads()
    try:
        run(shards, tmp_path / "run", "train.steps=1")
        config = config_for(shards, "train.steps=2", "train.threads=2", "train.device=cpu")
        train(config, tmp_path / "run", resume=True)
    finally:
        torch.set_num_threads(before)
    (event,) = lines(tmp_path / "run", "rounding_changed")
    assert event["changes"] == ["train.device: 'auto' -> 'cpu'", "train.threads: 1 -> 2"]
    assert "train.threads: 1 -> 2: sums are rounded differently from here on" in capsys.readouterr().err
    changes = rounding_changes(load_config(), load_config(None, ["train.compile=true", "log.every=3"]))
    assert changes == ["train.compile: False -> True"] and not (ROUNDING_ON_RESUME & FREE_ON_RESUME)
    assert changed_settings(load_config(), load_config(None, ["train.compile=true"])) == []


def test_the_picture_of_a_step_is_of_its_last_part(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run", "train.steps=1", "log.pictures_every=1", "train.accumulate=2")
    picture = np.asarray(Image.open(tmp_path / "run/pictures/training-0000001.png"))
    side = 4 * 32  # views of 32 pixels are drawn four times as large
    assert picture.shape == (HEADING_PX + 2 * (side + 2) + LEGEND_PX, 5 * (side + 2) - 2, 3)

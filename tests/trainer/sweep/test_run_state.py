"""What a run's log says: where it is, whether it has ended, its curve; also while it is being written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer.sweep.run_state import LogFollower, loss_curve, read_state


def write(run_dir: Path, *lines: dict[str, Any], end: str = "") -> None:
    run_dir.mkdir(exist_ok=True)
    with open(run_dir / "log.jsonl", "a") as log:
        log.write("".join(json.dumps(line) + "\n" for line in lines) + end)


def step(number: int, loss: float | str) -> dict[str, Any]:
    return {"event": "step", "step": number, "loss": loss, "samples_per_s": 4.0}


def test_a_run_that_was_taken_up_again_has_not_stopped(tmp_path: Path) -> None:
    (tmp_path / "flowfeat.safetensors").write_bytes(b"model")
    assert read_state(tmp_path).step == 0
    write(tmp_path, {"event": "start", "step": 0, "shards": "abc"}, step(2, 0.5))
    write(tmp_path, {"event": "stop", "step": 2, "reason": "steps"})
    state = read_state(tmp_path)
    assert (state.step, state.stopped, state.shards, state.loss) == (2, "steps", "abc", 0.5)
    write(tmp_path, {"event": "start", "step": 2, "shards": "abc"}, step(4, 0.25))
    assert (read_state(tmp_path).step, read_state(tmp_path).stopped) == (4, "")


def test_a_run_without_its_model_has_not_stopped(tmp_path: Path) -> None:
    write(tmp_path, {"event": "stop", "step": 2, "reason": "steps"})
    assert read_state(tmp_path).stopped == ""


def test_following_waits_for_whole_lines(tmp_path: Path) -> None:
    follower = LogFollower(tmp_path)
    assert follower.look().step == 0
    write(tmp_path, step(1, 0.5), end='{"event": "step", "step": 2, "lo')
    assert follower.look().step == 1
    write(tmp_path, end='ss": 0.25}\n')
    assert follower.look().step == 2 and follower.state.loss == 0.25


def test_the_curve_of_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    """Killed after step 3, taken up again after step 1; step 2 and 3 were done again."""
    write(tmp_path, step(1, 4.0), step(2, 3.0), step(3, 2.9), end='{"event": "st\n')
    write(tmp_path, {"event": "start", "step": 1}, step(2, 3.5), step(3, "nan"))
    assert loss_curve(tmp_path) == [(1, 4.0), (2, 3.5), (3, 2.9)]
    assert loss_curve(tmp_path / "none") == []

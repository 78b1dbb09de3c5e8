"""The picture of a run's curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.trainer.runs import run
from trainer.checkpoint import checkpoints
from trainer.curves import HEIGHT, WIDTH, read_curves, write_curves


def test_a_run_leaves_its_curves_with_every_point_also_after_a_resume(shards: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "run", ("data.holdout=0.4", "log.holdout_every=2")
    run(shards, out, *settings, "train.steps=2")
    run(shards, out, *settings, "train.steps=4", resume=True)
    curves = read_curves(out / "log.jsonl")
    assert [step for step, _ in curves["step", "loss"]] == [1, 2, 3, 4]
    assert [step for step, _ in curves["holdout", "epe_px"]] == [0, 2, 4]
    with Image.open(out / "curves.png") as picture:
        assert picture.size == (WIDTH, 4 * HEIGHT)
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 4


def test_later_lines_count_and_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines = [
        '{"event": "step", "step": 1, "loss": 3}',
        '{"event": "step", "step": 2, "loss": "nan"}',
        '{"event": "step", "step": 1, "loss": 2.5}',
        '{"event": "step", "st',
    ]
    log.write_text("\n".join(lines))
    assert read_curves(log) == {("step", "loss"): [(1, 2.5)]}
    write_curves(tmp_path)  # a single point, a range of nothing
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (WIDTH, HEIGHT)
    (tmp_path / "curves.png").unlink()
    log.write_text("")
    write_curves(tmp_path)
    assert not (tmp_path / "curves.png").exists()


def test_a_line_whose_steps_a_kill_divides_is_the_mean_over_all_of_them(shards: Path, tmp_path: Path) -> None:
    """Killed after the checkpoint of step 6, between the log lines of steps 4 and 8."""
    settings = ("log.every=4", "log.checkpoint_every=3", "train.steps=8")
    for name in ("whole", "parts"):
        run(shards, tmp_path / name, *settings)
    for file in checkpoints(tmp_path / "parts")[-1:]:
        file.unlink()
    log = tmp_path / "parts" / "log.jsonl"
    log.write_text("\n".join(line for line in log.read_text().splitlines() if '"step": 8' not in line) + "\n")
    run(shards, tmp_path / "parts", *settings, resume=True)
    whole, parts = (read_curves(tmp_path / name / "log.jsonl") for name in ("whole", "parts"))
    assert [step for step, _ in parts["step", "loss"]] == [4, 8]
    assert parts["step", "loss"] == whole["step", "loss"]
    assert parts["step", "lattice"] == whole["step", "lattice"]

"""The picture of a run's curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.trainer.runs import run
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

"""The sweep of what goes beyond the paper: every such setting has a row that turns it on alone."""

from __future__ import annotations

from pathlib import Path

from trainer.config import load_config
from trainer.sweep.sweep_file import read_sweep_file

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SETTINGS = {
    *("loss.grad_kind", "loss.confidence", "data.neighbours", "data.motion_samples", "data.motion_neighbours"),
    *("train.schedule", "teacher.export"),
}


def test_every_setting_has_a_row_that_differs_from_the_baseline_in_it_alone() -> None:
    sweep = read_sweep_file(CONFIGS / "sweeps" / "ablations.toml")
    rows = {row.name: dict(row.settings) for row in sweep.rows}
    assert rows.pop(sweep.baseline) == {}
    turned = [{key for key in settings if key != "train.warmup_steps"} for settings in rows.values()]
    assert all(len(keys) == 1 for keys in turned) and set().union(*turned) == SETTINGS
    plain = load_config()
    for key in SETTINGS:
        section, name = key.split(".")
        off = getattr(getattr(plain, section), name)
        assert off in (False, 0, 1, "magnitude", "constant"), f"{key} is on by default"
        assert all(settings.get(key) != off for settings in rows.values())

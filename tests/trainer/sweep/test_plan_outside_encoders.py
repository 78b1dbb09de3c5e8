"""A sweep's rows may stand on encoders that are not ours: planned like any other, faulted before the first run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.outside_fixtures import conv_encoder
from tests.trainer.sweep.small_sweep import HEAD, write_sweep
from tests.trainer.training_set import write_training_set
from trainer.sweep.plan import plan_sweep
from trainer.sweep.sweep_file import read_sweep_file

__all__ = ["conv_encoder"]
ROW = """
[[rows]]
name = "full"

[[rows]]
name = "mine"
"""


def test_a_users_encoder_is_planned_and_its_faults_are_its_rows(conv_encoder: str, tmp_path: Path) -> None:
    shards = write_training_set(tmp_path / "set")

    def plan(settings: str) -> list[str]:
        text = HEAD + ROW + f"settings = {{ {settings} }}\n"
        file = read_sweep_file(write_sweep(tmp_path / "some.toml", text))
        return [run.config.encoder.variant for run in plan_sweep(file, tmp_path / "out", [str(shards)], {}).runs]

    assert plan(f'"encoder.variant" = "{conv_encoder}"')[2:] == [conv_encoder] * 2
    for settings, message in (
        (f'"encoder.variant" = "{conv_encoder}", "views.image_size" = 40', "40 does not suit conv_encoder:make"),
        ('"encoder.variant" = "conv_encoder:mak"', "conv_encoder has no mak; did you mean make"),
    ):
        with pytest.raises(ValueError, match=f"row 'mine': .*{message}"):
            plan(settings)

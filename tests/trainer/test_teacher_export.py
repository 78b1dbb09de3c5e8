"""teacher.export: the model file holds the EMA decoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.runs import config_for, lines, run
from tests.trainer.test_objective import Reconstruction
from tests.trainer.training_set import write_training_set
from trainer import FlowFeat
from trainer.checkpoint import checkpoints
from trainer.train import train


def test_the_model_file_holds_the_teacher_and_the_training_is_the_same(shards: Path, tmp_path: Path) -> None:
    student, teacher = (
        run(shards, tmp_path / name, *more).model_file for name, more in (("a", ()), ("b", ("teacher.export=true",)))
    )
    assert student is not None and teacher is not None
    last = checkpoints(tmp_path / "b")[-1]
    expected = FlowFeat.from_pretrained(last, teacher=True).state_dict()
    for suffix in (".safetensors", ".pth"):
        found = FlowFeat.from_pretrained(teacher.with_suffix(suffix)).state_dict()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    of_student = FlowFeat.from_pretrained(student).state_dict()
    assert any(not torch.equal(of_student[key], expected[key]) for key in expected)
    assert all(torch.equal(FlowFeat.from_pretrained(last).state_dict()[key], of_student[key]) for key in expected)
    assert [line["loss"] for line in lines(tmp_path / "a", "step")] == [
        line["loss"] for line in lines(tmp_path / "b", "step")
    ]


def test_a_finished_run_gives_its_teacher_when_asked_again(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run")
    again = run(shards, tmp_path / "run", "teacher.export=true", resume=True).model_file
    expected = FlowFeat.from_pretrained(checkpoints(tmp_path / "run")[-1], teacher=True).state_dict()
    assert again is not None
    assert all(torch.equal(value, expected[key]) for key, value in FlowFeat.from_pretrained(again).state_dict().items())


def test_an_objective_without_a_teacher_is_refused_before_training(tmp_path: Path) -> None:
    shards = write_training_set(tmp_path / "set", optional=True)
    with pytest.raises(ValueError, match="Reconstruction has no teacher"):
        train(config_for(shards, "teacher.export=true"), tmp_path / "run", console=False, objective=Reconstruction)
    assert not (tmp_path / "run" / "config.toml").exists()

"""train.compile: the same training up to rounding, with a teacher that moves and files that know nothing of it.

Graphs are captured and differentiated ahead of time here as ever, but run by PyTorch's own kernels. The default compiler, which
takes a minute of CPU time for a model of this size, is compared with the eager step by `bench/train_step.py --compile`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from tests.trainer.runs import assert_equal, config_for, final_state, run
from tests.trainer.test_update import views_of
from trainer import FlowFeat
from trainer.learner import Learner
from trainer.update import FlowDistillation

RTOL = 1e-4  # of a loss or a gradient's norm, after up to seven steps


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler is started."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


def learners(shards: Path) -> tuple[Learner, Learner]:
    eager, compiled = (
        Learner(config_for(shards, "train.batch_size=2", f"train.compile={flag}"), torch.device("cpu"))
        for flag in ("false", "true")
    )
    return eager, compiled


def assert_same_steps(eager: Learner, compiled: Learner, steps: int) -> None:
    for seed in range(steps):
        one, other = (learner.learn(views_of(seed=seed)) for learner in (eager, compiled))
        assert other.numbers() == pytest.approx(one.numbers(), rel=RTOL), seed


def test_compiled_steps_are_the_eager_ones(shards: Path, quick_compiler: None) -> None:
    eager, compiled = learners(shards)
    assert isinstance(compiled.objective, FlowDistillation)
    assert type(compiled.objective._study).__name__ == "OptimizedModule", "the compiled decoder is what runs"
    begun = compiled.objective.teacher.state_dict()["ema_model.scratch.output_conv0.weight"].clone()
    assert_same_steps(eager, compiled, 7)
    teacher = compiled.objective.teacher.state_dict()
    assert int(teacher["step"]) == 7
    assert not torch.equal(teacher["ema_model.scratch.output_conv0.weight"], begun), "the teacher moves under compile"
    with (
        torch.no_grad()
    ):  # what the compiled teacher computes with is what the average has become, not a constant of the graph
        images = views_of().image1
        maps = compiled.model.encode(images).maps_bdhw
        taught = compiled.objective._teach(maps, (32, 32))
        torch.testing.assert_close(taught, compiled.objective.teacher.decoder(maps, (32, 32)), rtol=1e-4, atol=1e-5)
    assert compiled.state_dict()["model"].keys() == eager.state_dict()["model"].keys()
    assert not any("_orig_mod" in key for key in compiled.state_dict()["model"])


def test_a_compiled_run_resumes_exactly_and_leaves_plain_files(
    shards: Path, tmp_path: Path, quick_compiler: None
) -> None:
    run(shards, tmp_path / "straight", "train.compile=true", "train.steps=4")
    run(shards, tmp_path / "halves", "train.compile=true", "train.steps=2")
    run(shards, tmp_path / "halves", "train.compile=true", "train.steps=4", resume=True)
    assert_equal(final_state(tmp_path / "halves"), final_state(tmp_path / "straight"))
    model = FlowFeat.from_pretrained(tmp_path / "halves/flowfeat.safetensors")
    assert not any("_orig_mod" in key for key in model.state_dict())

"""One update: precision, accumulation, what moves and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.runs import TINY, assert_equal, config_for, lines, run
from trainer.config import load_config
from trainer.learner import Learner
from trainer.update import FlowDistillation
from trainer.views import Views


def test_bf16_networks_keep_the_method_in_float32(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CUDA-only option, run through the CPU's autocast: close to float32 and trainable."""
    monkeypatch.setattr("trainer.learner.set_precision", lambda config, device: None)
    draw = torch.Generator().manual_seed(0)
    views = Views(*(torch.randn(2, c, 32, 32, generator=draw) for c in (3, 3, 2, 2)))
    updates = {}
    for precision in ("fp32", "bf16"):
        config = config_for(shards, f"train.precision={precision}", "train.batch_size=2")
        learner = Learner(config, torch.device("cpu"))
        updates[precision] = learner.learn(views)
        assert all(p.dtype == torch.float32 for p in learner.parameters)
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in learner.parameters)
    assert updates["bf16"].shown["predicted"].dtype == torch.float32
    fp32, bf16 = (updates[precision].numbers() for precision in ("fp32", "bf16"))
    assert bf16["total"] == pytest.approx(fp32["total"], rel=0.02)
    assert bf16["total"] != fp32["total"]
    assert bf16["gradient_norm"] == pytest.approx(fp32["gradient_norm"], rel=0.1)


def test_accumulated_parts_give_the_gradient_of_the_batch(shards: Path, tmp_path: Path) -> None:
    for name, parts in (("one", 1), ("two", 2), ("four", 4)):
        run(shards, tmp_path / name, f"train.accumulate={parts}", "train.steps=1")
    losses = [lines(tmp_path / name, "step")[0] for name in ("one", "two", "four")]
    for key in ("loss", "loss_grad", "loss_flow", "grad_norm"):
        assert losses[1][key] == pytest.approx(losses[0][key], rel=1e-4)
        assert losses[2][key] == pytest.approx(losses[0][key], rel=1e-4)


def test_learner_state_survives_a_round_trip(shards: Path) -> None:
    config = config_for(shards)
    learner = Learner(config, torch.device("cpu"))
    other = Learner(load_config(None, [*TINY, "train.seed=9"]), torch.device("cpu"), learner.state_dict())
    assert_equal(other.state_dict(), learner.state_dict())


def views_of(count: int = 2, seed: int = 0) -> Views:
    draw = torch.Generator().manual_seed(seed)
    return Views(*(torch.randn(count, c, 32, 32, generator=draw) for c in (3, 3, 2, 2)))


def test_the_teacher_follows_the_student_that_has_taken_its_step(shards: Path) -> None:
    """The first call copies: afterwards both are the student of after the step, not of before."""
    learner = Learner(config_for(shards, "train.batch_size=2"), torch.device("cpu"))
    assert isinstance(learner.objective, FlowDistillation)
    before = {name: p.detach().clone() for name, p in learner.model.decoder.named_parameters()}
    learner.learn(views_of())
    student, teacher = learner.model.decoder.state_dict(), learner.objective.teacher.decoder.state_dict()
    assert any(not torch.equal(before[name], student[name]) for name in before)
    assert all(torch.equal(teacher[name], student[name]) for name in student)


def test_the_optimiser_gets_every_setting_of_the_config(shards: Path) -> None:
    """And uses them: two steps with other betas or another weight decay lead elsewhere."""
    reached = []
    for overrides in ((), ("train.betas=[0.5,0.6]",), ("train.weight_decay=0.3",), ("train.lr=2e-3",)):
        config = config_for(shards, "train.batch_size=2", *overrides)
        learner = Learner(config, torch.device("cpu"))
        (group,) = learner.optimiser.param_groups
        assert (group["lr"], group["betas"], group["weight_decay"]) == (
            config.train.lr, config.train.betas, config.train.weight_decay
        )  # fmt: skip
        for seed in (0, 1):
            learner.learn(views_of(seed=seed))
        reached.append(learner.model.decoder.state_dict()["scratch.output_conv0.weight"].clone())
    assert not any(torch.equal(reached[0], other) for other in reached[1:])


def test_the_decoder_keeps_channels_last(shards: Path) -> None:
    """Whatever a convolution gets and gives has its channels side by side in memory, so that no map is ever rearranged."""
    learner = Learner(config_for(shards, "train.batch_size=2"), torch.device("cpu"))
    seen: list[bool] = []

    def look(module: torch.nn.Module, given: tuple[torch.Tensor, ...], got: torch.Tensor) -> None:
        seen.extend(tensor.stride(1) == 1 for tensor in (*given[:1], got))

    for module in learner.model.decoder.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.register_forward_hook(look)
    learner.learn(views_of())
    assert len(seen) > 40 and all(seen)

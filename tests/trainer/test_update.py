"""One update: precision, accumulation, what moves and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.runs import TINY, assert_equal, config_for, lines, run
from trainer.config import load_config
from trainer.learner import Learner
from trainer.views import Views


def test_bf16_networks_keep_the_method_in_float32(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CUDA-only option, run through the CPU's autocast: close to float32 and trainable."""
    monkeypatch.setattr("trainer.learner.set_precision", lambda config, device: None)
    draw = torch.Generator().manual_seed(0)
    views = Views(*(torch.randn(2, c, 32, 32, generator=draw) for c in (3, 3, 2, 2)))
    updates = {}
    for precision in ("float32", "bf16"):
        config = config_for(shards, f"train.precision={precision}", "train.batch_size=2")
        learner = Learner(config, torch.device("cpu"))
        updates[precision] = learner.learn(views)
        assert all(p.dtype == torch.float32 for p in learner.parameters)
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in learner.parameters)
    assert updates["bf16"].shown["predicted"].dtype == torch.float32
    assert updates["bf16"].losses["total"] == pytest.approx(updates["float32"].losses["total"], rel=0.02)
    assert updates["bf16"].losses["total"] != updates["float32"].losses["total"]
    assert updates["bf16"].grad_norm == pytest.approx(updates["float32"].grad_norm, rel=0.1)


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

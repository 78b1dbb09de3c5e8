"""The naive objective: one map for all images, learned with the decoder; nothing of it reaches an exported model."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch

from tests.trainer.runs import assert_equal, config_for, final_state, lines, run
from trainer import FlowFeat
from trainer.checkpoint import checkpoints
from trainer.config_sections import ObjectiveConfig
from trainer.distill import flow_loss, gradient_loss
from trainer.learner import Learner
from trainer.naive import NaiveFlow
from trainer.objectives import OBJECTIVES
from trainer.views import Views

NAIVE = "objective.name=naive"


def views_of(count: int) -> Views:
    draw = torch.Generator().manual_seed(0)
    return Views(*(torch.randn(count, c, 32, 32, generator=draw) for c in (3, 3, 2, 2)))


def naive_learner(shards: Path, *overrides: str) -> tuple[Learner, NaiveFlow]:
    learner = Learner(config_for(shards, NAIVE, "train.batch_size=2", *overrides), torch.device("cpu"))
    assert isinstance(learner.objective, NaiveFlow)
    return learner, learner.objective


def test_config_and_table_name_the_same_objectives() -> None:
    assert set(get_args(get_type_hints(ObjectiveConfig)["name"])) == set(OBJECTIVES)


def test_the_loss_is_that_of_one_map_for_all_images(shards: Path) -> None:
    learner, objective = naive_learner(shards)
    views = views_of(2)
    assert views.u2 is not None
    found = objective.loss(views)
    _, studied = learner.model(views.image2)
    map_D2 = objective.shared_map_D2
    predicted = torch.einsum("bdhw,dc->bchw", studied, map_D2[:-1]) + map_D2[-1].view(1, 2, 1, 1)
    assert torch.allclose(found.shown["predicted"], predicted, atol=1e-5)
    grad, flow = gradient_loss(predicted, views.u2, 0.1), flow_loss(predicted, views.u2)
    assert found.total.item() == pytest.approx((grad + 0.1 * flow).item(), rel=1e-5)


def test_the_map_learns_beside_the_decoder_and_is_not_fitted(shards: Path) -> None:
    """One optimiser step moves every weight of the map by the learning rate, as AdamW's first step does."""
    learner, objective = naive_learner(shards)
    before = objective.shared_map_D2.detach().clone()
    decoder = {name: p.detach().clone() for name, p in learner.model.decoder.named_parameters()}
    learner.learn(views_of(2))
    moved = (objective.shared_map_D2 - before).abs()
    assert torch.allclose(moved, torch.full_like(moved, 1e-3), rtol=0.02)
    assert any(not torch.equal(decoder[name], p) for name, p in learner.model.decoder.named_parameters())


def test_the_first_view_does_not_matter(shards: Path) -> None:
    _, objective = naive_learner(shards)
    views = views_of(2)
    other = views._replace(image1=views.image1 + 1, u1=None)
    assert objective.loss(views).total.item() == objective.loss(other).total.item()


def test_a_run_resumes_exactly_and_exports_a_plain_model(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "straight", NAIVE, "train.steps=5")
    run(shards, tmp_path / "halves", NAIVE, "train.steps=2")
    run(shards, tmp_path / "halves", NAIVE, "train.steps=5", resume=True)
    assert_equal(final_state(tmp_path / "halves"), final_state(tmp_path / "straight"))
    assert lines(tmp_path / "straight", "step")[0]["loss"] > 0
    exported = FlowFeat.from_pretrained(tmp_path / "straight/flowfeat.safetensors").state_dict()
    assert not [key for key in exported if "shared_map" in key]
    assert_equal(dict(FlowFeat.from_pretrained(checkpoints(tmp_path / "straight")[-1]).state_dict()), dict(exported))


def test_a_run_does_not_change_its_objective(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run", "train.steps=1")
    with pytest.raises(ValueError, match=r"objective\.name: 'flowfeat' -> 'naive'"):
        run(shards, tmp_path / "run", NAIVE, "train.steps=2", resume=True)

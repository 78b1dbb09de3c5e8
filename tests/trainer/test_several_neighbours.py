"""Several neighbours of one anchor in a step: K maps from one pass of the decoder, the mean of K separate passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from shards.reader import ShardSet
from shards.sample import Buffers
from tests.trainer.runs import assert_equal, config_for, final_state, lines, run
from tests.trainer.training_set import FakeSource, write_training_set
from trainer.batch import Plan
from trainer.checkpoint import checkpoints
from trainer.config_sections import LossConfig
from trainer.feed import on_device
from trainer.learner import Learner
from trainer.loader import Loader
from trainer.order import SampleOrder
from trainer.training_samples import sample_order
from trainer.update import ConfidentFlow, FlowDistillation, distill
from trainer.views import Views, cut_views, draw_boxes

KINDS = ("l1", "l2", "smooth_l1", "huber")


def views_of(shards: Path, neighbours: int, members: frozenset[str]) -> Views:
    """The first batch of a run, as its objective sees it."""
    opened, config = ShardSet(shards), config_for(shards)
    plan = Plan(sample_order(opened, config), 4, 64, 32, members=members, neighbours=neighbours)  # type: ignore[arg-type]
    with Loader(opened, plan, workers=0) as loader:
        batch = next(on_device(loader, torch.device("cpu")))
        boxes = draw_boxes(0, batch.host.positions, (0.5, 0.75), 64)
        return cut_views(batch.pixels, boxes, view_size=32, source_size=64)


def one_neighbour(views: Views, k: int) -> Views:
    assert views.u1 is not None and views.u2 is not None
    trust = [None if c is None else c[:, k : k + 1] for c in (views.confidence1, views.confidence2)]
    u1, u2 = views.u1[:, 2 * k : 2 * k + 2], views.u2[:, 2 * k : 2 * k + 2]
    return views._replace(u1=u1, u2=u2, confidence1=trust[0], confidence2=trust[1])


@pytest.mark.parametrize("objective", [FlowDistillation, ConfidentFlow])
def test_the_gradient_is_the_mean_over_separate_passes(objective: type[FlowDistillation], tmp_path: Path) -> None:
    shards = write_training_set(tmp_path / "set", optional=True)
    views = views_of(shards, 2, objective.members)
    learner = Learner(config_for(shards), torch.device("cpu"), objective=objective)

    def gradients(parts: list[Views]) -> tuple[list[torch.Tensor], float]:
        learner.optimiser.zero_grad()
        loss = torch.stack([learner.objective.loss(part).total for part in parts]).mean()
        loss.backward()
        return [p.grad.clone() for p in learner.parameters if p.grad is not None], float(loss.detach())

    together, loss = gradients([views])
    apart, mean = gradients([one_neighbour(views, k) for k in range(2)])
    assert loss == pytest.approx(mean, rel=1e-5)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    first, second = ([g.norm() for g in gradients([one_neighbour(views, k)])[0]] for k in range(2))
    assert not torch.allclose(torch.stack(first), torch.stack(second), rtol=1e-2), "the neighbours' flows differ"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_loss_is_the_mean_over_neighbours(kind: str) -> None:
    draw = torch.Generator().manual_seed(0)
    taught, studied = (torch.randn(2, 5, 8, 8, generator=draw) for _ in range(2))
    u1, u2 = (torch.randn(2, 6, 8, 8, generator=draw) for _ in range(2))
    settings = LossConfig(flow_kind=kind)  # type: ignore[arg-type]
    found = distill(taught, studied, u1, u2, settings)
    each = [distill(taught, studied, u1[:, k : k + 2], u2[:, k : k + 2], settings) for k in (0, 2, 4)]
    for name in ("flow", "grad", "total"):
        expected = torch.stack([getattr(one, name) for one in each]).mean()
        torch.testing.assert_close(getattr(found, name), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.map_bD2, torch.cat([one.map_bD2 for one in each], dim=2))


class FramesOnce(FakeSource):
    """Counts the frames that are asked for; FakeSource itself wants a frame every time."""

    frames = 0

    def read_into(self, i: int, k: int, out: Buffers, /) -> float:
        self.frames += out.image_hwc is not None
        frame = np.empty((8, 8, 3), np.uint8) if out.image_hwc is None else out.image_hwc
        return super().read_into(i, k, out._replace(image_hwc=frame))


def test_flows_are_read_for_different_neighbours_and_the_frame_once() -> None:
    source, order = FramesOnce(), SampleOrder(np.ones((10, 3), bool), seed=0)
    with Loader(source, Plan(order, 5, 8, 4, neighbours=2), workers=0) as loader:
        batch = next(loader.batches())
    assert source.frames == 5 and len(source.reads) == 10
    assert batch.flow_b2hw is not None and batch.flow_b2hw.shape == (5, 2, 2, 4, 4)
    assert (batch.neighbour[:, 0] != batch.neighbour[:, 1]).all()
    for row in range(5):
        assert (batch.images_bhwc[row] == batch.sample[row]).all()
        for k in range(2):
            column = int(batch.neighbour[row, k])
            assert (batch.flow_b2hw[row, k] == column).all() and batch.quantum_px[row, k] == 2.0**-column


def test_a_sample_of_which_one_flow_is_unreadable_is_replaced_whole() -> None:
    order = SampleOrder(np.ones((10, 3), bool), seed=0)
    bad = int(order.several(np.array([1]), 3).sample[0])
    plan = Plan(order, 4, 8, 4, neighbours=3)
    with Loader(FramesOnce(bad=[bad]), plan, workers=0, max_failed_share=1.0) as loader:
        batch = next(loader.batches())
    assert [failure.sample for failure in batch.failures] == [bad] and bad not in batch.sample
    assert len(set(batch.neighbour[1].tolist())) == 3


def test_a_run_with_workers_is_the_run_without_and_resumes_bit_equal(shards: Path, tmp_path: Path) -> None:
    settings = ("data.neighbours=2", "log.checkpoint_every=3", "log.pictures_every=3", "data.holdout=0.4")
    run(shards, tmp_path / "whole", *settings)
    run(shards, tmp_path / "parts", *settings, "data.workers=2")
    checkpoints(tmp_path / "parts")[-1].unlink()
    run(shards, tmp_path / "parts", *settings, resume=True)
    assert_equal(final_state(tmp_path / "parts")["model"], final_state(tmp_path / "whole")["model"])
    run(shards, tmp_path / "plain")
    assert lines(tmp_path / "whole", "step")[0]["loss"] != lines(tmp_path / "plain", "step")[0]["loss"]


def test_more_neighbours_than_there_are_and_the_naive_objective_are_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.neighbours = 4: samples of .* have 3 neighbours"):
        run(shards, tmp_path / "run", "data.neighbours=4")
    with pytest.raises(ValueError, match=r"data\.neighbours = 2: samples of .* have 1 neighbours"):
        run(shards, tmp_path / "run", "data.neighbours=2", "data.offsets=[1]")
    with pytest.raises(ValueError, match=r'data\.neighbours = 2 is for objective\.name = "flowfeat"'):
        config_for(shards, "data.neighbours=2", "objective.name=naive")
    kept = write_training_set(tmp_path / "set", optional=True)
    with pytest.raises(ValueError, match=r"data\.neighbours = 2: the training objective reads one neighbour's frame"):
        sample_order(ShardSet(kept), config_for(kept, "data.neighbours=2"), frozenset({"frame", "neighbour"}))

"""Another objective is one class: the loader, the views and the loop follow from the members that it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import simplejpeg
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shards.reader import ShardSet
from shards.sample import Member
from tests.trainer.runs import assert_equal, config_for, final_state, lines
from tests.trainer.training_set import FLOW, IMAGE, optional_members, write_training_set
from trainer import FlowFeat
from trainer.batch import Plan, Slots
from trainer.checkpoint import checkpoints
from trainer.config import Config
from trainer.feed import on_device
from trainer.loader import Loader
from trainer.objective import Loss
from trainer.order import SampleOrder
from trainer.pictures import Picture, photo
from trainer.train import train
from trainer.training_samples import sample_order
from trainer.views import Boxes, Pixels, Views, crop_theta, cut_views, sample_view


class Reconstruction:
    """A toy: a linear readout of the features must give the neighbour's frame, where the flow is trusted. Needs no flow."""

    members: ClassVar[frozenset[Member]] = frozenset({"frame", "neighbour", "confidence"})
    seen: ClassVar[list[Views]] = []

    def __init__(self, config: Config, model: FlowFeat) -> None:
        self.model, self.steps = model, 0
        torch.manual_seed(config.train.seed)
        self.readout = nn.Conv2d(model.feature_dim, 3, 1)

    def parameters(self) -> list[nn.Parameter]:
        return [*self.model.decoder.parameters(), *self.readout.parameters()]

    def loss(self, views: Views) -> Loss:
        assert views.u1 is None and views.neighbour1 is not None and views.confidence1 is not None
        self.seen.append(views)
        _, features = self.model.features_with_grad(views.image1)
        rebuilt = self.readout(features)
        error = (views.confidence1 * F.l1_loss(rebuilt, views.neighbour1, reduction="none")).mean()
        return Loss(error, {"photo": error}, {"rebuilt": rebuilt.detach()})

    def after_step(self) -> None:
        self.steps += 1

    def facts(self) -> dict[str, float]:
        return {"own_steps": self.steps}

    def picture(self, views: Views, shown: Mapping[str, Tensor]) -> Picture:
        assert views.neighbour1 is not None
        return np.concatenate([photo(views.neighbour1[0]), photo(shown["rebuilt"][0])], axis=1)

    def state_dict(self) -> dict[str, Tensor]:
        return {**self.model.state_dict(), **{f"objective.{k}": v for k, v in self.readout.state_dict().items()}}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        mine = {k.removeprefix("objective."): v for k, v in tensors.items() if k.startswith("objective.")}
        self.readout.load_state_dict(mine)
        self.model.load_state_dict({k: v for k, v in tensors.items() if not k.startswith("objective.")})


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_set(tmp_path_factory.mktemp("data") / "kept", optional=True)


def test_a_toy_objective_trains_on_neighbours_and_confidence(kept: Path, tmp_path: Path) -> None:
    Reconstruction.seen.clear()
    pictures = ("log.pictures_every=2", "train.accumulate=2")
    outcome = train(
        config_for(kept, "train.steps=2", *pictures), tmp_path / "run", console=False, objective=Reconstruction
    )
    assert outcome.step == 2 and outcome.model_file is not None and len(Reconstruction.seen) == 4
    for views in Reconstruction.seen:
        assert views.u1 is None and views.neighbour2 is not None and views.neighbour2.shape == (2, 3, 32, 32)
        assert views.confidence2 is not None and views.confidence2.shape == (2, 1, 32, 32)
    steps = lines(tmp_path / "run", "step")
    assert steps[-1]["own_steps"] == 2 and steps[-1]["loss"] == pytest.approx(steps[-1]["loss_photo"])
    assert (tmp_path / "run/pictures/training-0000002.png").is_file()
    fresh = FlowFeat.create("tiny_dino8", init="random").state_dict()
    trained = FlowFeat.from_pretrained(outcome.model_file).state_dict()
    assert any(not torch.equal(trained[key], fresh[key]) for key in fresh)
    in_checkpoint = FlowFeat.from_pretrained(checkpoints(tmp_path / "run")[-1]).state_dict()
    assert all(torch.equal(in_checkpoint[key], trained[key]) for key in trained)
    train(config_for(kept, "train.steps=3"), tmp_path / "straight", console=False, objective=Reconstruction)
    train(config_for(kept, "train.steps=1"), tmp_path / "halves", console=False, objective=Reconstruction)
    train(config_for(kept, "train.steps=3"), tmp_path / "halves", console=False, objective=Reconstruction, resume=True)
    assert_equal(final_state(tmp_path / "halves"), final_state(tmp_path / "straight"))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_delivers_exactly_the_stored_pixels(kept: Path, workers: int) -> None:
    shards = ShardSet(kept)
    members: frozenset[Member] = frozenset({"frame", "flow", "neighbour", "confidence"})
    plan = Plan(SampleOrder(shards.trainable_mask & shards.stored_mask("confidence"), seed=0), 4, IMAGE, FLOW)
    plan = Plan(plan.order, 4, IMAGE, FLOW, members=members)
    labels = ("m1", "p1", "p2")
    with Loader(shards, plan, workers=workers) as loader:
        for device_batch in on_device(loader, torch.device("cpu")):
            host, pixels = device_batch
            assert pixels.neighbours_bhwc is not None and pixels.confidence_bhw is not None and not host.failures
            for row, (i, k) in enumerate(zip(host.sample, host.neighbour, strict=True)):
                stored = optional_members(int(shards.video[i][1:]))
                frame = simplejpeg.decode_jpeg(stored[f"{labels[k]}.jpg"], "RGB")
                confidence = simplejpeg.decode_jpeg(stored[f"{labels[k]}.conf.jpg"], "GRAY")[..., 0]
                assert np.array_equal(pixels.neighbours_bhwc[row].numpy(), frame)
                assert np.array_equal(pixels.confidence_bhw[row].numpy(), confidence)
                sample = shards.read(int(i), int(k))
                assert pixels.flow_b2hw is not None and np.array_equal(pixels.flow_b2hw[row].numpy(), sample.flow_chw)
                assert np.array_equal(pixels.images_bhwc[row].numpy(), sample.image_hwc)
            if host.step == 4:
                break


def test_slots_hold_what_is_asked_for_and_nothing_else() -> None:
    order = SampleOrder(np.ones((4, 3), bool), seed=0)
    sizes = {}
    for members in (frozenset({"frame"}), Reconstruction.members, frozenset({"frame", "flow"})):
        slots = Slots(Plan(order, 2, 64, 32, members=members), 1)  # type: ignore[arg-type]
        sizes[members] = set(slots.arrays) - {"sample", "neighbour", "quantum_px"}
    assert list(sizes.values()) == [
        {"images_bhwc"},
        {"images_bhwc", "neighbours_bhwc", "confidence_bhw"},
        {"images_bhwc", "flow_b2hw"},
    ]


def test_all_members_are_cut_with_the_same_grids() -> None:
    draw = torch.Generator().manual_seed(0)
    frames, neighbours = (torch.randint(0, 256, (2, 40, 40, 3), generator=draw).byte() for _ in range(2))
    confidence = torch.randint(0, 256, (2, 20, 20), generator=draw).byte()
    boxes = Boxes(np.array([[0.5, 0.6], [0.7, 0.75]]), np.array([[0, 3], [5, 9]]), np.array([[20, 1], [2, 0]]))
    pixels = Pixels(frames, neighbours_bhwc=neighbours, confidence_bhw=confidence)
    views = cut_views(pixels, boxes, view_size=16, source_size=40)
    twin = cut_views(Pixels(neighbours), boxes, view_size=16, source_size=40)
    assert views.u1 is None and views.neighbour1 is not None and views.neighbour2 is not None
    assert torch.equal(views.neighbour1, twin.image1) and torch.equal(views.neighbour2, twin.image2)
    scale, top, left = (torch.from_numpy(v[:, 1]) for v in boxes)
    grid = crop_theta(scale, top, left, (40, 40))
    assert views.confidence2 is not None
    torch.testing.assert_close(views.confidence2, sample_view(confidence[:, None] / 255, grid, (16, 16)))


def test_samples_without_the_member_are_left_out_and_sets_without_any_refused(kept: Path, tmp_path: Path) -> None:
    shards = ShardSet(kept)
    config = config_for(kept, "data.offsets=[1]")
    order = sample_order(shards, config, Reconstruction.members)
    assert len(sample_order(shards, config)) - len(order) == 1
    assert 4 not in {int(shards.video[i][1:]) for i in order.samples}
    plain = write_training_set(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"objective reads neighbour members.*holds none.*--keep-neighbours"):
        train(config_for(plain), tmp_path / "run", console=False, objective=Reconstruction)
    assert not (tmp_path / "run").exists()

"""Held-out figures: the formulas against direct computation, and that a training does not notice them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from shards.index_arrays import Names
from shards.reader import ShardSet
from tests.trainer.runs import assert_equal, config_for, final_state, lines, run
from tests.trainer.training_set import flip_image_byte, write_training_set
from trainer import train as train_module
from trainer.holdout import FlowSums, HeldOut, affine_flow, end_point_error_px, mean_flow, px_per_unit
from trainer.objective import Loss
from trainer.shard_sets import open_sets
from trainer.training_samples import held_out_mask, held_out_order, sample_order
from trainer.update import FlowDistillation
from trainer.views import Pixels, Views, cut_views, draw_boxes

HOLDOUT = "data.holdout=0.4"
SETTINGS = (HOLDOUT, "log.holdout_every=2")


def random_flow(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- formulas --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(7, 9), (8, 8), (2, 3)])
def test_the_affine_fit_is_the_least_squares_solution(size: tuple[int, int]) -> None:
    height, width = size
    u = random_flow(3, 2, height, width)
    y, x = np.mgrid[0:height, 0:width]
    design = np.stack([np.ones(height * width), x.ravel(), y.ravel()], axis=1)
    for sample, fitted in zip(u, affine_flow(u), strict=True):
        flat = sample.reshape(2, -1).numpy().T
        solution = np.linalg.lstsq(design, flat, rcond=None)[0]
        np.testing.assert_allclose(fitted.reshape(2, -1).numpy().T, design @ solution, atol=1e-12)


def test_an_affine_flow_is_explained_whole_and_a_constant_one_by_its_mean() -> None:
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(5.0), indexing="ij")
    u = torch.stack((2 + 0.5 * x - y, -1 + 0.25 * x + 3 * y))[None].double()
    assert torch.allclose(affine_flow(u), u, atol=1e-12)
    constant = torch.full((2, 2, 4, 4), 3.0, dtype=torch.float64)
    assert torch.equal(mean_flow(constant), constant)


def test_figures_agree_with_direct_computation_over_batches() -> None:
    flow_sums, u, v = FlowSums(), random_flow(4, 2, 6, 5), random_flow(4, 2, 6, 5, seed=1)
    px = random_flow(4, 2, 1, 1, seed=2).abs()
    for rows in (slice(0, 2), slice(2, 4)):
        flow_sums.add(v[rows], u[rows], px[rows])
    found = flow_sums.figures()
    assert found is not None
    left = variance = error = 0.0
    for i in range(4):
        for c in range(2):
            left += float(((v[i, c] - u[i, c]) ** 2).sum())
            variance += float(((u[i, c] - u[i, c].mean()) ** 2).sum())
        dx, dy = (float(px[i, c]) * (v[i, c] - u[i, c]) for c in range(2))
        error += float(torch.sqrt(dx**2 + dy**2).mean()) / 4
    assert found.explained == pytest.approx(1 - left / variance, rel=1e-12)
    assert found.epe_px == pytest.approx(error, rel=1e-12)
    assert found.epe_px_of_mean == pytest.approx(float(end_point_error_px(mean_flow(u), u, px)), rel=1e-12)
    assert found.epe_px_of_affine == pytest.approx(float(end_point_error_px(affine_flow(u), u, px)), rel=1e-12)
    residual = float((affine_flow(u) - u).square().sum())
    assert found.explained_by_affine == pytest.approx(1 - residual / variance, rel=1e-12)
    assert FlowSums().figures() is None


def test_a_perfect_readout_explains_all_and_the_mean_flow_nothing() -> None:
    u, px = random_flow(2, 2, 6, 5), torch.ones(2, 2, 1, 1, dtype=torch.float64)
    for v, explained in ((u, 1.0), (mean_flow(u), 0.0)):
        sums = FlowSums()
        sums.add(v, u, px)
        found = sums.figures()
        assert found is not None and found.explained == pytest.approx(explained, abs=1e-12)


def test_errors_are_in_pixels_of_the_stored_map() -> None:
    """Where the view is the whole map, standardised flow times its scale differs from the flow in pixels by the mean only."""
    flow_px = (random_flow(1, 2, 8, 8) * 5).float()
    quantum = 2.0**-10
    stored = torch.round(flow_px / quantum).to(torch.int16)
    pixels = Pixels(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), stored, torch.tensor([quantum]))
    boxes = draw_boxes(0, np.array([0]), (1.0, 1.0), 8)
    views = cut_views(pixels, boxes, view_size=8, source_size=8)
    assert views.u2 is not None
    exact = stored.float() * quantum
    back = views.u2 * px_per_unit(exact) + exact.mean(dim=(-2, -1), keepdim=True)
    assert torch.allclose(back, exact, atol=1e-4)


# --- which videos ----------------------------------------------------------------------------------------------------


def test_whole_videos_are_held_out_by_seed_and_name_alone() -> None:
    videos = [f"v{n // 2}" for n in range(4000)]
    mask = held_out_mask(videos, 0, 0.25)
    assert (mask[::2] == mask[1::2]).all() and abs(mask.mean() - 0.25) < 0.03
    assert np.array_equal(held_out_mask(videos[100:200], 0, 0.25), mask[100:200]), "other videos do not matter"
    as_read = Names(np.arange(4000, dtype=np.int32) // 2, pa.array([f"v{n}" for n in range(2000)]))
    assert np.array_equal(held_out_mask(as_read, 0, 0.25), mask)
    assert (held_out_mask(videos, 0, 0.4) | ~mask).all(), "a larger share holds out more"
    assert (held_out_mask(videos, 1, 0.25) != mask).any()
    assert held_out_mask(["a", "b", "c", "d", "e"], 0, 0.5).tolist() == [False, False, False, True, False]


def test_training_and_held_out_samples_make_up_the_set(shards: Path) -> None:
    opened, config = ShardSet(shards), config_for(shards, HOLDOUT)
    training, held_out = sample_order(opened, config), held_out_order(opened, config)
    assert held_out is not None
    everything = sample_order(opened, config_for(shards))
    assert sorted([*training.samples, *held_out.samples]) == list(everything.samples)
    assert not {opened.video[i] for i in training.samples} & {opened.video[i] for i in held_out.samples}
    assert held_out_order(opened, config_for(shards)) is None


def test_shares_that_leave_nothing_are_refused_and_leave_no_run(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.holdout = 1e-09 holds out no usable sample of the 10 videos.*or 0"):
        run(shards, tmp_path / "run", "data.holdout=1e-9")
    single = write_training_set(tmp_path / "one", samples=1)
    seed = next(s for s in range(100) if held_out_mask(["v0"], s, 0.5)[0])
    with pytest.raises(ValueError, match=r"outside the share of videos held out \(data\.holdout = 0\.5\)"):
        run(single, tmp_path / "run", "data.holdout=0.5", f"train.seed={seed}")
    assert not (tmp_path / "run").exists()


# --- while a training runs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_does_not_notice_the_evaluation(
    workers: int, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(shards, tmp_path / "with", HOLDOUT, "log.holdout_every=1", f"data.workers={workers}")
    assert len(lines(tmp_path / "with", "holdout")) == 7
    monkeypatch.setattr(train_module, "_held_out", lambda *_: None)
    run(shards, tmp_path / "without", HOLDOUT, f"data.workers={workers}")
    assert not lines(tmp_path / "without", "holdout")
    assert_equal(final_state(tmp_path / "with"), final_state(tmp_path / "without"))
    losses = [[line["loss"] for line in lines(tmp_path / name, "step")] for name in ("with", "without")]
    assert losses[0] == losses[1]


def test_no_held_out_video_is_ever_trained_on(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    on_device = train_module.on_device

    def watched(*args: Any) -> Any:
        for batch in on_device(*args):
            seen.update(batch.host.sample.tolist())
            yield batch

    monkeypatch.setattr(train_module, "on_device", watched)
    run(shards, tmp_path / "run", *SETTINGS)
    held_out = held_out_order(ShardSet(shards), config_for(shards, HOLDOUT))
    assert held_out is not None and seen and not seen & set(held_out.samples.tolist())


def test_no_gradient_is_kept_for_the_evaluation(shards: Path, tmp_path: Path) -> None:
    """Bounded memory: what a backward pass would need is let go of at once."""
    graded: list[bool] = []

    class Watched(FlowDistillation):
        def loss(self, views: Views) -> Loss:
            graded.append(torch.is_grad_enabled())
            return super().loss(views)

    train_module.train(
        config_for(shards, *SETTINGS, "train.steps=2"), tmp_path / "run", console=False, objective=Watched
    )
    assert graded == [False, True, True, False]


@pytest.mark.parametrize("objective", ["flowfeat", "naive"])
def test_figures_are_logged_and_the_same_again_after_a_resume(objective: str, shards: Path, tmp_path: Path) -> None:
    settings = (*SETTINGS, f"objective.name={objective}", "log.checkpoint_every=2")
    run(shards, tmp_path / "whole", *settings)
    run(shards, tmp_path / "parts", *settings, "train.steps=2")
    run(shards, tmp_path / "parts", *settings, resume=True)
    logged = [
        [{k: v for k, v in line.items() if k not in ("time", "seconds")} for line in lines(tmp_path / name, "holdout")]
        for name in ("whole", "parts")
    ]
    assert logged[0] == logged[1] and [line["step"] for line in logged[0]] == [0, 2, 4, 6]
    last = logged[0][-1]
    assert last["loss"] == pytest.approx(last["loss_grad"] + 0.1 * last["loss_flow"], rel=1e-5)
    assert last["explained"] < 1 and 0 < last["explained_by_affine"] < 1
    assert 0 < last["epe_px_of_affine"] < last["epe_px_of_mean"]
    assert last["samples"] == 4 and last["unreadable"] == 0


def test_evaluation_is_bounded_and_takes_other_samples_in_place_of_unreadable_ones(tmp_path: Path) -> None:
    root = write_training_set(tmp_path / "set", samples=24)
    opened, config = ShardSet(root), config_for(root, HOLDOUT, "log.holdout_batches=2", "train.accumulate=2")
    order = held_out_order(opened, config)
    assert order is not None and len(order) > 4
    flip_image_byte(root, int(order.visits(np.array([0])).sample[0]))
    run(root, tmp_path / "run", HOLDOUT, "log.holdout_batches=2", "train.accumulate=2", "train.steps=1")
    found = lines(tmp_path / "run", "holdout")[-1]
    assert found["samples"] == 4 and found["unreadable"] == 1  # two batches of half the training's size
    wide = replace(config, log=replace(config.log, holdout_batches=1000))
    held_out = train_module._held_out(open_sets(wide.data), wide, train_module.objective_of(wide))
    assert isinstance(held_out, HeldOut) and held_out.batches == len(order) // 2 and held_out.slots.count == 1


def test_the_terminal_and_tensorboard_get_the_figures(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_for(shards, *SETTINGS, "log.tensorboard=true", "train.steps=2")
    train_module.train(config, tmp_path / "run")
    said = capsys.readouterr().err.replace("\n", " ")
    assert "step 2: held out, 4 samples: loss " in said and "of flow variance explained (affine fit" in said
    assert f"tensorboard--logdir{tmp_path}/run" in "".join(said.split()), "however long the path's line is wrapped"
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    assert [point.step for point in board.Scalars("holdout/explained")] == [0, 2]

"""Motion-aware sampling: expected frequencies, purity, and that weights of one change nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shards.reader import ShardSet
from tests.trainer.runs import assert_equal, config_for, final_state, lines, run
from trainer.block_order import BlockOrder
from trainer.checkpoint import checkpoints
from trainer.order import SampleOrder
from trainer.preference import Preference, edges_within, motion_weights, pick_columns, sample_weights
from trainer.training_samples import held_out_order, sample_order

N, K = 40, 3
ONE_GROUP = np.zeros(N, np.int64)


def order_with(weights: np.ndarray | None = None, columns: np.ndarray | None = None, seed: int = 0) -> SampleOrder:
    order = SampleOrder(np.ones((N, K), bool), seed=seed)
    order.preference = Preference(None if weights is None else edges_within(weights, ONE_GROUP), columns)
    return order


def counts(order: SampleOrder, epochs: int, start: int = 0) -> np.ndarray:
    return np.bincount(order.visits(np.arange(start * N, (start + epochs) * N)).sample, minlength=N)


def test_samples_come_as_often_as_their_weight_says_in_every_epoch_and_on_average() -> None:
    weights = np.linspace(0.1, 3, N)
    expected = weights / weights.mean()
    order = order_with(weights)
    for epoch in range(5):
        found = counts(order, 1, epoch)
        assert found.sum() == N and (np.abs(found - expected) < 2).all(), "intervals, not lots"
    np.testing.assert_allclose(counts(order, 4000) / 4000, expected, atol=0.04)


def test_equal_weights_are_the_order_without_preference() -> None:
    plain, positions = SampleOrder(np.ones((N, K), bool), seed=3), np.arange(7 * N)
    assert np.array_equal(order_with(np.full(N, 2.5), seed=3).visits(positions).sample, plain.visits(positions).sample)
    alike = order_with(columns=np.full((N, K), 0.7), seed=3).visits(positions)
    assert_equal([a.tolist() for a in alike], [a.tolist() for a in plain.visits(positions)])


def test_neighbours_come_by_weight_and_forbidden_ones_never() -> None:
    weights = np.tile([1.0, 0.0, 3.0], (N, 1))
    found = np.bincount(order_with(columns=weights).visits(np.arange(400 * N)).neighbour, minlength=K) / (400 * N)
    np.testing.assert_allclose(found, [0.25, 0, 0.75], atol=0.01)


def test_any_slice_of_positions_gives_the_same_and_another_seed_something_else() -> None:
    weights = np.linspace(0.5, 2, N)
    columns = np.random.default_rng(0).uniform(0.1, 1, (N, K))
    whole = order_with(weights, columns).visits(np.arange(300))
    parts = [order_with(weights, columns).visits(np.arange(a, b)) for a, b in ((0, 17), (17, 230), (230, 300))]
    for k in (0, 1):
        assert np.array_equal(np.concatenate([part[k] for part in parts]), whole[k])
    assert (order_with(weights, columns, seed=1).visits(np.arange(300)).sample != whole.sample).any()


def test_groups_keep_their_own_stretch() -> None:
    """A heavy set takes nothing from the others, and blocks are read as evenly as ever."""
    groups = np.repeat([0, 1, 2], [10, 4, 26])
    weights = np.concatenate([np.full(10, 100.0), np.full(4, 0.01), np.linspace(1, 9, 26)])
    edges = edges_within(weights, groups)
    assert edges[[9, 13, 39]].tolist() == [10, 14, 40] and (np.diff(edges) > 0).all()
    rows = np.repeat(np.arange(40), 50)
    drawn = Preference(edges).rows(rows, np.random.default_rng(0).random(len(rows)))
    assert np.array_equal(groups[drawn], groups[rows])
    blocks = np.repeat(np.arange(4), 10)
    order = BlockOrder(np.ones((N, K), bool), seed=0, blocks=blocks, window_blocks=2, set_sizes=[N])
    positions = np.arange(N)
    before = blocks[order.visits(positions).sample]
    order.preference = Preference(edges_within(np.linspace(1, 9, N), blocks))
    assert np.array_equal(blocks[order.visits(positions).sample], before)


def test_weights_are_powers_of_the_clipped_ratio_to_the_median() -> None:
    std = np.stack([np.array([[1.0, 2.0], [4.0, 1000.0], [0.0, np.nan]])] * 2, axis=2)
    usable = np.array([[True, True], [True, True], [True, False]])
    median = 2.0  # of 1, 2, 4, 1000, 0
    expected = np.array([[1 / median, 1], [2, 8], [1 / 8, 0]])
    np.testing.assert_allclose(motion_weights(std, usable, 1.0), expected)
    np.testing.assert_allclose(motion_weights(std, usable, -0.5)[usable], expected[usable] ** -0.5)
    assert (motion_weights(std, usable, 0.0)[usable] == 1).all()
    np.testing.assert_allclose(sample_weights(expected), [0.75, 5, 0.125])
    unequal = motion_weights(np.array([[[3.0, 4.0]], [[1.0, 1.0]]]), np.ones((2, 1), bool), 1.0)
    assert unequal[0, 0] / unequal[1, 0] == pytest.approx(np.sqrt(12.5))


def test_several_columns_are_different_ones_drawn_by_weight() -> None:
    draws = np.random.default_rng(0).random((20_000, 3))
    weights = np.tile([1.0, 2.0, 5.0], (len(draws), 1))
    found = pick_columns(weights, draws, 2)
    assert (found[:, 0] != found[:, 1]).all()
    np.testing.assert_allclose(np.bincount(found[:, 0]) / len(draws), [1 / 8, 2 / 8, 5 / 8], atol=0.01)
    # second after first, without the first: P(2nd = a) = sum_b P(b) w_a / (W - w_b)
    second = [2 / 8 * 1 / 6 + 5 / 8 * 1 / 3, 1 / 8 * 2 / 7 + 5 / 8 * 2 / 3, 1 / 8 * 5 / 7 + 2 / 8 * 5 / 6]
    np.testing.assert_allclose(np.bincount(found[:, 1]) / len(draws), second, atol=0.01)
    lone = pick_columns(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]), np.array([[0.5, 0.0, 0.5], [0.1, 0.9, 0.8]]), 3)
    assert lone.tolist() == [[1, 1, 1], [2, 0, 2]]


def test_a_run_prefers_motion_and_resumes_bit_equal(shards: Path, tmp_path: Path) -> None:
    settings = ("data.motion_samples=1.0", "data.motion_neighbours=0.5", "log.checkpoint_every=3")
    run(shards, tmp_path / "whole", *settings)
    run(shards, tmp_path / "parts", *settings)
    checkpoints(tmp_path / "parts")[-1].unlink()
    run(shards, tmp_path / "parts", *settings, resume=True)
    assert_equal(final_state(tmp_path / "parts")["model"], final_state(tmp_path / "whole")["model"])
    run(shards, tmp_path / "plain")
    assert lines(tmp_path / "whole", "step")[-1]["loss"] != lines(tmp_path / "plain", "step")[-1]["loss"]


def test_moving_samples_of_a_set_come_more_often_and_held_out_ones_do_not_notice(shards: Path) -> None:
    opened = ShardSet(shards)
    config = config_for(shards, "data.motion_samples=1.0", "data.holdout=0.4")
    order = sample_order(opened, config)
    usable = opened.trainable_mask[order.samples]
    weights = sample_weights(motion_weights(opened.std_px[order.samples], usable, 1.0))
    found = np.bincount(order.visits(np.arange(4000 * len(order))).sample, minlength=len(opened))[order.samples] / 4000
    np.testing.assert_allclose(found, weights / weights.mean(), atol=0.05)
    held_out = held_out_order(opened, config)
    assert held_out is not None and held_out.preference is None
    assert sample_order(opened, config_for(shards)).preference is None

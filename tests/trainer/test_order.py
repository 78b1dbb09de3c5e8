"""The order is a pure function: complete, uniform, and the same for every way of asking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.order import SampleOrder, batch_positions, permute, uniforms
from trainer.views import draw_boxes

PINNED_SAMPLES = [738, 90, 640, 866, 427]
PINNED_NEIGHBOURS = [0, 2, 2, 0, 1]
PINNED_TOPS = [[25, 78], [98, 5]]
PINNED_SCALES = [[0.7223246036517029, 0.6559133384856713], [0.6770301786930679, 0.5989852837136606]]


@settings(deadline=None)
@given(n=st.integers(1, 600), key=st.integers(0, 2**63))
def test_permute_is_a_permutation(n: int, key: int) -> None:
    image = permute(np.arange(n), n, np.full(n, key, np.uint64))
    assert sorted(image) == list(range(n))


def test_permute_reaches_large_sets_at_single_positions() -> None:
    n = 147_646 * 16
    some = np.array([0, 1, n // 2, n - 1])
    image = permute(some, n, np.full(4, 12345, np.uint64))
    assert len(set(image)) == 4 and (image >= 0).all() and (image < n).all()


def test_permutations_of_small_sets_are_uniform() -> None:
    """All 24 orders of 4 samples come equally often over 12,000 epochs (chi-square, 23 degrees of freedom, p = 1e-6)."""
    order = SampleOrder(np.ones((4, 1), bool), seed=3)
    epochs = order.visits(np.arange(4 * 12_000)).sample.reshape(-1, 4)
    _, counts = np.unique(epochs, axis=0, return_counts=True)
    assert len(counts) == 24
    assert ((counts - 500) ** 2 / 500).sum() < 72.5


def test_every_epoch_visits_every_trainable_sample_once() -> None:
    mask = np.random.default_rng(0).random((57, 4)) < 0.3
    order = SampleOrder(mask, seed=1)
    assert len(order) == mask.any(axis=1).sum() < 57
    for epoch in range(3):
        visits = order.visits(np.arange(len(order)) + epoch * len(order))
        assert sorted(visits.sample) == list(np.flatnonzero(mask.any(axis=1)))
        assert mask[visits.sample, visits.neighbour].all()
    first, second = (order.visits(np.arange(len(order)) + e * len(order)).sample for e in (0, 1))
    assert (first != second).any()


def test_neighbours_are_uniform_among_trainable_ones() -> None:
    mask = np.array([[True, False, True, True], [False, True, False, False]])
    visits = SampleOrder(mask, seed=5).visits(np.arange(24_000))
    counts = np.bincount(visits.neighbour[visits.sample == 0], minlength=4)
    assert counts[1] == 0
    assert np.abs(counts[[0, 2, 3]] / 12_000 - 1 / 3).max() < 0.02
    assert set(visits.neighbour[visits.sample == 1]) == {1}


def test_columns_restrict_neighbours() -> None:
    mask = np.array([[True, True, False], [True, False, False], [False, True, True]])
    order = SampleOrder(mask, seed=0, columns=[1, 2])
    visits = order.visits(np.arange(200))
    assert set(visits.sample) == {0, 2} and set(visits.neighbour) == {1, 2}


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 6, 12])
def test_ranks_share_the_same_global_batches(ranks: int) -> None:
    order = SampleOrder(np.ones((31, 4), bool), seed=9)
    for step in (0, 1, 7, 1000):
        parts = [batch_positions(step, 12, rank=r, ranks=ranks) for r in range(ranks)]
        together = np.concatenate(parts)
        assert (together == np.arange(12) + 12 * step).all()
        whole = order.visits(batch_positions(step, 12))
        split = [order.visits(part) for part in parts]
        assert (np.concatenate([v.sample for v in split]) == whole.sample).all()
        assert (np.concatenate([v.neighbour for v in split]) == whole.neighbour).all()


def test_a_batch_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="batch size 10 cannot be shared by 4 ranks"):
        batch_positions(0, 10, ranks=4)


@settings(deadline=None)
@given(positions=st.lists(st.integers(0, 2**40), min_size=1, max_size=20), seed=st.integers(0, 2**31 - 1))
def test_positions_can_be_asked_for_in_any_grouping(positions: list[int], seed: int) -> None:
    order = SampleOrder(np.ones((19, 3), bool), seed=seed)
    asked = np.array(positions)
    whole, boxes = order.visits(asked), draw_boxes(seed, asked, (0.5, 0.75), 448)
    for row, position in enumerate(positions):
        alone = order.visits(np.array([position]))
        assert (alone.sample[0], alone.neighbour[0]) == (whole.sample[row], whole.neighbour[row])
        single = draw_boxes(seed, np.array([position]), (0.5, 0.75), 448)
        assert all((a[0] == b[row]).all() for a, b in zip(single, boxes, strict=True))


def test_seeds_give_other_orders_and_other_views() -> None:
    orders = [SampleOrder(np.ones((100, 4), bool), seed=s).visits(np.arange(100)) for s in (0, 1)]
    assert (orders[0].sample != orders[1].sample).mean() > 0.9
    boxes = [draw_boxes(s, np.arange(100), (0.5, 0.75), 448) for s in (0, 1)]
    assert (boxes[0].scale != boxes[1].scale).all()


@pytest.mark.parametrize("source", [448, 256, 96])
def test_boxes_follow_the_sampling_law(source: int) -> None:
    boxes = draw_boxes(0, np.arange(20_000), (0.5, 0.75), source)
    side = np.floor(boxes.scale * source)
    assert (boxes.scale >= 0.5).all() and (boxes.scale < 0.75).all()
    assert (boxes.top >= 0).all() and (boxes.top + side <= source).all()
    assert (boxes.left >= 0).all() and (boxes.left + side <= source).all()
    assert (boxes.top + side == source).any() and (boxes.top == 0).any()
    assert abs(boxes.scale.mean() - 0.625) < 0.002
    assert abs((boxes.top / (source - side)).mean() - 0.5) < 0.01
    assert abs(np.corrcoef(boxes.scale[:, 0], boxes.scale[:, 1])[0, 1]) < 0.03  # the two views are independent


def test_draws_are_uniform_and_streams_differ() -> None:
    draws = uniforms(7, 1, np.arange(50_000), 2)
    assert (draws >= 0).all() and (draws < 1).all()
    counts, _ = np.histogram(draws[:, 0], bins=50, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 120  # 49 degrees of freedom, p < 1e-7
    assert abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 0.02
    assert (draws != uniforms(7, 2, np.arange(50_000), 2)).all()


def test_order_is_pinned() -> None:
    """These numbers are part of what `--resume` promises: runs started by an earlier version must go on the same."""
    visits = SampleOrder(np.ones((1000, 4), bool), seed=42).visits(np.array([0, 1, 999, 1000, 10**9]))
    boxes = draw_boxes(42, np.array([0, 10**9]), (0.5, 0.75), 448)
    assert visits.sample.tolist() == PINNED_SAMPLES
    assert visits.neighbour.tolist() == PINNED_NEIGHBOURS
    assert boxes.top.tolist() == PINNED_TOPS
    np.testing.assert_allclose(boxes.scale, PINNED_SCALES, rtol=1e-12)

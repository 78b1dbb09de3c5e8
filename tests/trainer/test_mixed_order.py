"""The order over several weighted sets: each set's share of every epoch, each set's samples in whole rounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.mixed_order import MixedOrder, split_visits

SIZES = (30, 7, 12)


def order_of(weights: tuple[float, ...], sizes: tuple[int, ...] = SIZES, seed: int = 0) -> MixedOrder:
    return MixedOrder(np.ones((sum(sizes), 2), bool), seed=seed, set_sizes=sizes, weights=weights)


def epochs(order: MixedOrder, count: int) -> np.ndarray:
    return order.visits(np.arange(count * len(order))).sample.reshape(count, -1)


@settings(deadline=None)
@given(
    samples=st.lists(st.integers(1, 500), min_size=1, max_size=6),
    weights=st.lists(st.floats(0.01, 100), min_size=6, max_size=6),
)
def test_shares_add_up_and_are_the_weights_but_for_rounding(samples: list[int], weights: list[float]) -> None:
    used = weights[: len(samples)]
    visits = split_visits(samples, used)
    assert sum(visits) == sum(samples)
    exact = np.array(used) / sum(used) * sum(samples)
    assert np.abs(np.array(visits) - exact).max() < 1


def test_every_epoch_gives_each_set_its_share() -> None:
    order = order_of((1, 1, 2))
    assert len(order) == 49 and [part.visits for part in order.parts] == [12, 12, 25]
    for epoch in epochs(order, 7):
        counts = [((epoch >= low) & (epoch < high)).sum() for low, high in ((0, 30), (30, 37), (37, 49))]
        assert counts == [12, 12, 25]


def test_each_set_is_seen_in_whole_rounds() -> None:
    """Visit counts of a set's samples never differ by more than one, at the end of any epoch; after 30 epochs of 12 of 30: 12 each."""
    order = order_of((1, 1, 2))
    seen = np.zeros(49, int)
    for epoch in epochs(order, 30):
        np.add.at(seen, epoch, 1)
        for low, high in ((0, 30), (30, 37), (37, 49)):
            assert np.ptp(seen[low:high]) <= 1
    assert (seen[:30] == 12).all()


def test_weights_in_proportion_to_the_sizes_are_every_sample_once() -> None:
    for epoch in epochs(order_of(tuple(float(size) for size in SIZES)), 3):
        assert sorted(epoch) == list(range(49))


def test_sets_are_strewn_over_the_epoch() -> None:
    order = order_of((1.0, 1.0), sizes=(500, 500))
    first = epochs(order, 2)[0]
    assert abs((first[:200] < 500).mean() - 0.5) < 0.12
    assert (epochs(order, 2)[0] != epochs(order, 2)[1]).any() and (
        first != epochs(order_of((1, 1), (500, 500), 1), 1)[0]
    ).any()


@settings(deadline=None, max_examples=15)
@given(positions=st.lists(st.integers(0, 2**40), min_size=1, max_size=6), seed=st.integers(0, 2**31 - 1))
def test_positions_can_be_asked_for_in_any_grouping(positions: list[int], seed: int) -> None:
    order = order_of((3, 1, 1.5), seed=seed)
    whole = order.visits(np.array(positions))
    for row, position in enumerate(positions):
        alone = order.visits(np.array([position]))
        assert (alone.sample[0], alone.neighbour[0]) == (whole.sample[row], whole.neighbour[row])


def test_a_weight_that_gives_a_set_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.weights gives set 2 of 3 less than one of the 49 visits"):
        order_of((1, 1e-6, 1))


def test_order_is_pinned() -> None:
    """What `--resume` promises, as in test_order.py."""
    visits = order_of((1, 1, 2), seed=42).visits(np.array([0, 1, 48, 49, 10**9]))
    assert visits.sample.tolist() == PINNED


PINNED = [38, 44, 35, 39, 44]

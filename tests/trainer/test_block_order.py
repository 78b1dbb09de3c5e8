"""The order in blocks: complete, pure, local, well mixed; each block with one reader."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.blocks import block_numbers
from trainer.block_order import BlockOrder

SHARD = np.repeat(np.arange(9, dtype=np.int32), [10, 7, 10, 1, 10, 3, 10, 10, 4])  # 65 samples in 9 shards
BLOCKS = block_numbers(SHARD, 4)


def order_of(
    window: int = 3,
    *,
    seed: int = 0,
    mask: np.ndarray | None = None,
    set_sizes: tuple[int, ...] = (65,),
    weights: tuple[float, ...] = (),
) -> BlockOrder:
    mask = np.ones((65, 2), bool) if mask is None else mask
    return BlockOrder(mask, seed=seed, blocks=BLOCKS, window_blocks=window, set_sizes=set_sizes, weights=weights)


def test_blocks_never_cross_a_shard() -> None:
    assert BLOCKS[:10].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2] and BLOCKS[10:17].tolist() == [3, 3, 3, 3, 4, 4, 4]
    for number in range(BLOCKS[-1] + 1):
        assert len(set(SHARD[number == BLOCKS])) == 1 and 1 <= BLOCKS.tolist().count(number) <= 4
    assert block_numbers(np.zeros(0, np.int32), 4).tolist() == []


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**31 - 1), window=st.integers(1, 30), dense=st.floats(0.05, 1))
def test_every_epoch_visits_every_trainable_sample_once(seed: int, window: int, dense: float) -> None:
    mask = np.random.default_rng(seed).random((65, 2)) < dense
    mask[seed % 65] = True
    order = order_of(window, seed=seed, mask=mask)
    for epoch in (0, 1, 10**6):
        visits = order.visits(np.arange(len(order)) + epoch * len(order))
        assert sorted(visits.sample) == list(np.flatnonzero(mask.any(axis=1)))
        assert mask[visits.sample, visits.neighbour].all()


@settings(deadline=None, max_examples=8)
@given(
    positions=st.lists(st.integers(0, 2**40), min_size=1, max_size=4),
    seed=st.integers(0, 2**31 - 1),
    weights=st.sampled_from([(), (1.0, 1.0, 3.0), (4.0, 1.0, 1.0)]),
)
def test_positions_can_be_asked_for_in_any_grouping(
    positions: list[int], seed: int, weights: tuple[float, ...]
) -> None:
    order = order_of(seed=seed, set_sizes=(17, 21, 27), weights=weights)
    whole = order.visits(np.array(positions))
    fresh = order_of(seed=seed, set_sizes=(17, 21, 27), weights=weights)
    for row, position in reversed(list(enumerate(positions))):
        alone = fresh.visits(np.array([position]))
        assert (alone.sample[0], alone.neighbour[0]) == (whole.sample[row], whole.neighbour[row])


def test_samples_of_a_window_come_from_its_blocks_and_leave_none_behind() -> None:
    order, window = order_of(window=3), 3
    table = order.epoch(4)
    visits = order.visits(np.arange(65) + 4 * 65).sample
    for begin in range(0, len(table.block), window):
        low, high = table.before[begin], table.before[min(begin + window, len(table.block))]
        inside = [int(n) for n in np.flatnonzero(np.isin(BLOCKS, table.block[begin : begin + window]))]
        assert sorted(visits[low:high]) == inside


def test_windows_are_mixed() -> None:
    """Neighbours in time are rarely neighbours in the shard, and the first block of an epoch is a different one each time."""
    numbers = np.arange(4096) // 64
    order = BlockOrder(np.ones((4096, 1), bool), seed=0, blocks=numbers, window_blocks=16, set_sizes=(4096,))
    visits = order.visits(np.arange(3 * 4096)).sample.reshape(3, -1)
    assert (np.diff(visits, axis=1) == 1).mean() < 0.005 and (
        numbers[visits[:, 1:]] == numbers[visits[:, :-1]]
    ).mean() < 0.1
    assert len({frozenset(numbers[epoch[:64]]) for epoch in visits}) == 3
    assert (visits[0] != order_at_seed(1)).any()


def order_at_seed(seed: int) -> np.ndarray:
    numbers = np.arange(4096) // 64
    order = BlockOrder(np.ones((4096, 1), bool), seed=seed, blocks=numbers, window_blocks=16, set_sizes=(4096,))
    return order.visits(np.arange(4096)).sample


@pytest.mark.parametrize("weights", [(1.0, 1.0, 3.0), (9.0, 1.0, 1.0)])
def test_weighted_sets_keep_their_shares_and_rounds(weights: tuple[float, ...]) -> None:
    order = order_of(set_sizes=(17, 21, 27), weights=weights)
    bounds = ((0, 17), (17, 38), (38, 65))
    seen = np.zeros(65, int)
    for epoch in range(6):
        visits = order.visits(np.arange(65) + epoch * 65).sample
        assert [((visits >= a) & (visits < b)).sum() for a, b in bounds] == [part.visits for part in order.parts]
        np.add.at(seen, visits, 1)
        assert all(np.ptp(seen[a:b]) <= 1 for a, b in bounds)


@pytest.mark.parametrize("readers", [1, 2, 3, 7])
def test_every_block_has_one_reader_who_was_told_of_it(readers: int) -> None:
    order = order_of(window=4)
    for start in range(0, 200, 8):
        positions = np.arange(start, start + 8)
        blocks, owners = BLOCKS[order.visits(positions).sample], order.owners(positions, readers)
        assert (owners == blocks % readers).all()
        assert set(blocks) <= set(order.blocks_ahead(positions).tolist())


def test_blocks_are_announced_a_window_before_they_are_read_and_no_more_than_two_at_a_time() -> None:
    order, told, fresh = order_of(window=4), set(), []
    told = set(order.blocks_ahead(np.arange(2)).tolist())
    for position in range(2, 140):
        ahead = order.blocks_ahead(np.array([position]))
        assert len(ahead) <= 8
        block = int(BLOCKS[order.visits(np.array([position])).sample[0]])
        assert block in told
        fresh += sorted(set(ahead.tolist()) - told)
        told = set(ahead.tolist())
    assert fresh


def test_order_is_pinned() -> None:
    """What `--resume` promises, as in test_order.py."""
    order = order_of(seed=42, set_sizes=(17, 21, 27), weights=(1, 1, 3))
    assert order.visits(np.array([0, 1, 64, 65, 10**9])).sample.tolist() == PINNED


PINNED = [64, 50, 22, 36, 60]

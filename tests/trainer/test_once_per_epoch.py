"""Every sample once per epoch for any number of workers and ranks, which may change in the middle of an epoch.

Ranks are plans with a share of the global batch each; the loaders of all of them are real, with their worker processes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from tests.trainer.training_set import FakeSource
from trainer.batch import Plan
from trainer.block_order import BlockOrder
from trainer.loader import Loader
from trainer.mixed_order import MixedOrder
from trainer.order import SampleOrder

SAMPLES, BATCH = 60, 12
STEPS = SAMPLES // BATCH
MASK = np.ones((SAMPLES, 3), bool)
ORDERS: dict[str, Callable[[], SampleOrder]] = {
    "plain": lambda: SampleOrder(MASK, seed=4),
    "blocks": lambda: BlockOrder(MASK, seed=4, blocks=np.arange(SAMPLES) // 4, window_blocks=3, set_sizes=(SAMPLES,)),
}


def plan_of(order: SampleOrder) -> Plan:
    return Plan(order, BATCH, 8, 4)


def delivered(plan: Plan, first: int, steps: int, workers: int, ranks: int) -> list[np.ndarray]:
    """Per step [BATCH, 4]: position, sample, neighbour and the first byte of the frame, of all ranks together."""
    found: list[list[np.ndarray]] = [[] for _ in range(steps)]
    with ExitStack() as stack:
        for rank in range(ranks):
            part = replace(plan, rank=rank, ranks=ranks)
            loader = stack.enter_context(Loader(FakeSource(), part, workers=workers, prefetch_batches=2))
            for batch, rows in zip(islice(loader.batches(first), steps), found, strict=True):
                columns = (batch.positions, batch.sample, batch.neighbour, batch.images_bhwc[:, 0, 0, 0])
                rows.append(np.stack(columns, axis=1).astype(np.int64))
    return [np.concatenate(rows) for rows in found]


@pytest.mark.parametrize("kind", ORDERS)
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1, 2, 3, 7])
def test_every_sample_once_per_epoch(workers: int, ranks: int, kind: str) -> None:
    plan = plan_of(ORDERS[kind]())
    steps = delivered(plan, 0, 2 * STEPS, workers, ranks)
    for epoch in (steps[:STEPS], steps[STEPS:]):
        assert sorted(np.concatenate(epoch)[:, 1]) == list(range(SAMPLES))
    together = np.concatenate(steps)
    assert (together[:, 0] == np.arange(2 * SAMPLES)).all()
    visits = plan.order.visits(together[:, 0])
    assert (together[:, 1] == visits.sample).all() and (together[:, 2] == visits.neighbour).all()
    assert (together[:, 3] == visits.sample).all(), "the pixels are the sample's own"


@pytest.mark.parametrize("kind", ORDERS)
@pytest.mark.parametrize(("before", "after"), [((3, 2), (0, 1)), ((0, 1), (7, 3)), ((2, 3), (1, 2)), ((7, 1), (2, 3))])
def test_other_workers_and_ranks_from_the_middle_of_an_epoch_on(
    before: tuple[int, int], after: tuple[int, int], kind: str
) -> None:
    """Two steps with the numbers before, the rest of two epochs with those after: what one process delivers alone."""
    plan = plan_of(ORDERS[kind]())
    alone = delivered(plan, 0, 2 * STEPS, 0, 1)
    changed = delivered(plan, 0, 2, *before) + delivered(plan, 2, 2 * STEPS - 2, *after)
    for one, other in zip(alone, changed, strict=True):
        assert np.array_equal(one, other)


def test_weighted_sets_too() -> None:
    plan = plan_of(MixedOrder(MASK, seed=4, set_sizes=(20, 40), weights=(1, 1)))
    alone = delivered(plan, 0, 6, 0, 1)
    assert all(np.array_equal(a, b) for a, b in zip(alone, delivered(plan, 0, 6, 3, 2), strict=True))
    epoch = np.concatenate(alone[:STEPS])[:, 1]
    assert (epoch < 20).sum() == 30 and len(set(epoch[epoch >= 20])) == 30


def test_workers_share_every_batch_out_without_rest_or_overlap() -> None:
    for build in ORDERS.values():
        plan = replace(plan_of(build()), rank=1, ranks=2)
        for step in range(7):
            rows = np.concatenate([plan.rows(step, number, 4) for number in range(4)])
            assert sorted(rows) == list(range(BATCH // 2))

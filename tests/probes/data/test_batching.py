"""Batches: every picture in every pass, in an order that the seed alone decides."""

from __future__ import annotations

import torch

from probes.data.batching import BATCH_PIXELS, batches, pictures_per_batch, shuffled_batches


def test_batches_cover_a_range_once() -> None:
    assert [list(batch) for batch in batches(1, 7, 4)] == [[1, 2, 3, 4], [5, 6]]


def test_passes_go_on_inside_a_batch() -> None:
    chosen = list(shuffled_batches(5, 3, 10, seed=0))
    assert [len(batch) for batch in chosen] == [3] * 10
    flat = [number for batch in chosen for number in batch]
    assert all(sorted(flat[start : start + 5]) == [0, 1, 2, 3, 4] for start in range(0, 30, 5))
    assert flat[:5] != flat[5:10], "every pass has an order of its own"
    assert [len(batch) for batch in shuffled_batches(2, 5, 2, seed=0)] == [5, 5], "batches may exceed the data"
    assert list(shuffled_batches(5, 3, 10, seed=0)) == chosen != list(shuffled_batches(5, 3, 10, seed=1))


def test_pictures_per_batch_follow_their_size() -> None:
    cpu = torch.device("cpu")
    assert pictures_per_batch((480, 832), cpu) == 1
    assert pictures_per_batch((960, 1728), cpu) == 1
    assert pictures_per_batch((256, 256), cpu) == BATCH_PIXELS["cpu"] // 256**2 == 6
    assert pictures_per_batch((32, 32), cpu) == 8

"""Sharing of frames, batching over videos, halving and the memory budget, for a network of any family."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.flow import batching, memory
from pipeline.flow.batching import FrameTable, PairEstimator
from pipeline.window import Window
from tests.pipeline.flow.toy_network import ToyNetwork


def frames(count: int, rows: int = 6, columns: int = 8, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, rows, columns, 3), np.uint8)


def window(images: NDArray[np.uint8], name: str = "a", first: int = 0) -> Window:
    """The first image is the anchor, frame `first` of its video; the others follow it."""
    indices = tuple(range(first + 1, first + len(images)))
    offsets = tuple(range(1, len(images)))
    return Window(name, Path(name), offsets, first, indices, 0.0, (0.0,) * len(offsets), images[0], images[1:])


def shift(images: NDArray[np.uint8], k: int) -> NDArray[np.float64]:
    return images[k].mean(axis=(0, 1))[:2] - images[0].mean(axis=(0, 1))[:2]


def test_windows_of_several_videos_share_a_batch_and_their_frames() -> None:
    long, short = frames(5, seed=1), frames(3, seed=2)
    toy = ToyNetwork()
    flows = PairEstimator("toy", toy, 64).estimate([window(long), window(short, "b"), window(long[1:4], first=1)])
    assert toy.tried == [4 + 2 + 2], "one run for all pairs of all videos"
    assert toy.frames == [5 + 3], "the third window's frames are in the first window too"
    for images, flow in zip((long, short, long[1:4]), flows, strict=True):
        assert flow.flow_kchw.shape == (len(images) - 1, 2, 6, 8)
        assert flow.confidence_khw is not None and flow.confidence_khw.shape == (len(images) - 1, 6, 8)
        for k in range(1, len(images)):
            assert np.allclose(flow.flow_kchw[k - 1, :, 3, 4], shift(images, k), rtol=1e-5)


def test_windows_of_different_sizes_in_one_call() -> None:
    small, large = frames(3, seed=1), frames(2, 10, 9, seed=2)
    toy = ToyNetwork()
    flows = PairEstimator("toy", toy, 64).estimate([window(small), window(large, "b"), window(small, "c")])
    assert [flow.flow_kchw.shape for flow in flows] == [(2, 2, 6, 8), (1, 2, 10, 9), (2, 2, 6, 8)]
    assert toy.tried == [4, 1]
    assert np.allclose(flows[1].flow_kchw[0, :, 0, 0], shift(large, 1), rtol=1e-5)


def test_a_frame_in_two_windows_is_one_frame_but_only_if_it_is_the_same_picture() -> None:
    images = frames(2)
    table, first = FrameTable(), window(images)
    assert table.add(first, 0, images[0]) == table.add(first, 0, images[0].copy()) == 0
    assert table.add(first, 0, images[1]) == 1, "same name, other pixels: another frame"
    assert table.add(window(images, "b"), 0, images[0]) == 2


NO_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
)


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_halves_the_batch_and_reports_it(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    images, others = frames(5), frames(4, seed=3)
    toy = ToyNetwork(holds=2, error=error)
    estimator = PairEstimator("toy", toy, 8)
    with caplog.at_level(logging.WARNING):
        flows = estimator.estimate([window(images), window(others, "b")])
    assert toy.tried == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert (estimator.halvings, estimator.batch_pairs) == (2, 1)
    assert "toy: 7 pairs do not fit the memory of cpu" in caplog.text
    assert np.allclose(flows[0].flow_kchw[3, :, 0, 0], shift(images, 4), rtol=1e-5)
    assert np.allclose(flows[1].flow_kchw[2, :, 0, 0], shift(others, 3), rtol=1e-5)
    estimator.estimate([window(images)])
    assert toy.tried[9:] == [1, 1, 1, 1], "it stays halved"


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
def test_a_single_pair_that_does_not_fit_is_an_error(error: Exception) -> None:
    toy = ToyNetwork(holds=0, error=error)
    with pytest.raises(type(error)):
        PairEstimator("toy", toy, 8).estimate([window(frames(5))])
    assert toy.tried == [4, 2, 1]


def test_other_runtime_errors_are_not_taken_for_memory() -> None:
    toy = ToyNetwork(holds=0, error=RuntimeError("expected scalar type Float but found Half"))
    with pytest.raises(RuntimeError, match="scalar type"):
        PairEstimator("toy", toy, 8).estimate([window(frames(5))])
    assert toy.tried == [4]


def test_batches_keep_to_the_memory_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = ToyNetwork(bytes_per_pair=100)
    need = toy.pair_bytes(6, 8)
    monkeypatch.setattr(memory, "budget_bytes", lambda device: int(3.5 * need))
    PairEstimator("toy", toy, 64).estimate([window(frames(5))])
    assert toy.tried == [3, 1]
    monkeypatch.setattr(memory, "budget_bytes", lambda device: need - 1)
    with pytest.raises(ValueError, match=r"one pair of 8×6 px needs about .* make the frames smaller"):
        PairEstimator("toy", toy, 64).estimate([window(frames(2))])


class StandInCuda:
    """As much of torch.cuda as the budget asks: a device of 100 bytes whose allocator keeps what it once took."""

    def __init__(self) -> None:
        self.allocated, self.reserved = 0, 0

    def batch(self, size: int) -> None:
        self.reserved = max(self.reserved, self.allocated + size)

    def mem_get_info(self, device: object) -> tuple[int, int]:
        return 100 - self.reserved, 100

    def memory_reserved(self, device: object) -> int:
        return self.reserved

    def memory_allocated(self, device: object) -> int:
        return self.allocated


def test_what_the_allocator_keeps_is_free_for_the_next_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every batch after the first is smaller than it need be."""
    card = StandInCuda()
    for name in ("mem_get_info", "memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, getattr(card, name))
    card.allocated = card.reserved = 10  # the network
    first = memory.budget_bytes(torch.device("cuda"))
    card.batch(first)
    assert memory.budget_bytes(torch.device("cuda")) == first == int(0.8 * 90)


def test_a_batch_on_cuda_is_not_smaller_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    card, toy = StandInCuda(), ToyNetwork()
    monkeypatch.setattr(toy, "device", torch.device("cuda"), raising=False)
    for name in ("mem_get_info", "memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, getattr(card, name))
    monkeypatch.setattr(toy, "pair_bytes", lambda rows, columns: 20)
    run = toy.run

    def taking_memory(frames_fhwc: NDArray[np.uint8], pairs: list[tuple[int, int]]) -> batching.PairFlow:
        card.batch(20 * len(pairs))
        return run(frames_fhwc, pairs)

    monkeypatch.setattr(toy, "run", taking_memory)
    estimator = batching.PairEstimator("toy", toy, 64)
    estimator.estimate([window(frames(5))])
    estimator.estimate([window(frames(5))])
    assert toy.tried == [4, 4]

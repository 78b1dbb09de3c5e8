"""Whose fault it is when an estimator raises: a window's, its own, or nobody's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pipeline.extract.blame import CarefulEstimator, FlowFailure
from pipeline.flow.dis import DisFlow
from pipeline.flow.precision import moving_texture
from pipeline.window import Window, WindowFlow

WINDOWS = [replace(moving_texture(32, seed), video_id=f"v{seed}") for seed in range(5)]


class Picky:
    """DIS that raises for some videos. calls: sizes of the batches that it was given."""

    name = "dis"

    def __init__(self, error: Exception, *bad: str) -> None:
        self.error, self.bad, self.dis = error, bad, DisFlow()
        self.calls: list[int] = []

    def estimate(self, windows: Sequence[Window]) -> list[WindowFlow]:
        self.calls.append(len(windows))
        if any(window.video_id in self.bad for window in windows):
            raise self.error
        return self.dis.estimate(windows)


def test_halves_until_the_guilty_window_is_alone() -> None:
    picky = Picky(IndexError("no such frame"), "v3")
    answers = CarefulEstimator(picky).estimate(WINDOWS)
    assert [isinstance(answer, FlowFailure) for answer in answers] == [False, False, False, True, False]
    assert answers[3] == FlowFailure("IndexError: no such frame")
    assert picky.calls == [5, 2, 3, 1, 2, 1, 1, 1], "the last but one asks whether a good window still works"
    for window, answer in zip(WINDOWS, answers, strict=True):
        if isinstance(answer, WindowFlow):
            assert (answer.flow_kchw == DisFlow().estimate([window])[0].flow_kchw).all()


def test_the_first_window_may_be_the_guilty_one() -> None:
    answers = CarefulEstimator(Picky(IndexError("x"), "v0")).estimate(WINDOWS[:1])
    assert answers == [FlowFailure("IndexError: x")]


def test_an_estimator_that_takes_nothing_is_to_blame_itself() -> None:
    everything = [*(window.video_id for window in WINDOWS), "noise"]
    with pytest.raises(KeyError, match="layer"):
        CarefulEstimator(Picky(KeyError("no such layer"), *everything)).estimate(WINDOWS)


def test_an_estimator_that_falls_over_on_the_way_is_to_blame_itself() -> None:
    picky = Picky(RuntimeError("device-side assert"))
    careful = CarefulEstimator(picky)
    careful.estimate(WINDOWS[:2])
    picky.bad = tuple(window.video_id for window in WINDOWS)
    with pytest.raises(RuntimeError, match="device-side"):
        careful.estimate(WINDOWS[2:])


def test_memory_that_runs_out_is_no_windows_fault() -> None:
    picky = Picky(RuntimeError("CUDA out of memory"), "v3")
    with pytest.raises(RuntimeError, match="out of memory"):
        CarefulEstimator(picky).estimate(WINDOWS)
    assert picky.calls == [5]

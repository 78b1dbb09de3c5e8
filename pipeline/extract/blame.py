"""An estimator's exception → the windows that it cannot take, or the news that the estimator itself is broken.

A batch that fails is run again in halves, and so on, until the windows at fault are alone. Then a window that is known to be good is
run: if that fails as well (a defect, a device that has fallen over), no video is to blame. Where the estimator itself says that the video
is unfit, nothing is asked. Memory that runs out is nobody's fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.memory import is_out_of_memory
from pipeline.flow.estimator import FlowEstimator, UnfitVideo
from pipeline.window import Window, WindowFlow


@dataclass(frozen=True)
class FlowFailure:
    """A window that the estimator cannot take. detail: one line."""

    detail: str


class CarefulEstimator:
    """An estimator whose failures have a culprit. known: a window that it has taken."""

    def __init__(self, estimator: FlowEstimator) -> None:
        self.estimator = estimator
        self.known: Window | None = None

    def estimate(self, windows: Sequence[Window]) -> list[WindowFlow | FlowFailure]:
        """One answer per window, in order. Raises what the estimator raises where that is no window's fault."""
        try:
            flows = self.estimator.estimate(windows)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            failed = error
        else:
            assert len(flows) == len(windows), (len(flows), len(windows))
            if self.known is None and windows:
                self.known = _kept(windows[0])
            return list(flows)
        if len(windows) > 1:
            half = len(windows) // 2
            return self.estimate(windows[:half]) + self.estimate(windows[half:])
        if isinstance(failed, UnfitVideo):
            return [FlowFailure(str(failed))]
        self._check(windows[0], failed)
        return [FlowFailure(f"{type(failed).__name__}: {failed}")]

    def _check(self, culprit: Window, failed: Exception) -> None:
        """Raises `failed` when the estimator cannot take a good window either."""
        try:
            self.estimator.estimate([self.known or _noise_like(culprit)])
        except Exception:
            raise failed from None


def _kept(window: Window) -> Window:
    """A copy: the original's frames may lie where others will soon be."""
    return replace(window, anchor_hwc=window.anchor_hwc.copy(), neighbours_khwc=window.neighbours_khwc.copy())


def _noise_like(window: Window) -> Window:
    """A window of the same size with which nothing is wrong."""
    noise = np.random.default_rng(0)
    anchor_hwc = noise.integers(0, 256, window.anchor_hwc.shape, np.uint8)
    neighbours_khwc = np.stack([anchor_hwc] * len(window.offsets))
    return replace(window, video_id="noise", anchor_hwc=anchor_hwc, neighbours_khwc=neighbours_khwc)

"""The default estimator `dis`: OpenCV's Dense Inverse Search flow on the grey flow square. No weights, no accelerator.

Windows come in as RGB squares; each (anchor, neighbour) pair becomes one flow field in pixels of that square.
Equal input gives equal bytes for one OpenCV version, whose number is part of the statement: one thread, and no state from one
pair to the next.

Options (`EstimatorOptions.extra`):
    preset      ultrafast | fast | medium (default): OpenCV's own presets.
    confidence  false (default) | true: also compute the backward flow and return exp(-e), e the distance in pixels by which going
                there and back misses the starting point. Doubles the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.flow.estimator import EstimatorOptions
from pipeline.flow.options import as_switch, check_names
from pipeline.window import Window, WindowFlow
from shards.schema import Statement

PRESETS: dict[str, int] = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
MIN_SIDE_PX = 12
"""OpenCV refuses smaller squares: the coarsest pyramid level must hold an 8 px patch."""


@dataclass(frozen=True)
class DisChoice:
    """preset: a name of PRESETS. confidence: whether to compute the way back as well."""

    preset: str = "medium"
    confidence: bool = False
    name = "dis"
    smallest_side_px = MIN_SIDE_PX

    def statement(self) -> Statement:
        """`weights` is None: there are none."""
        return {"preset": self.preset, "confidence": self.confidence, "opencv": cv2.__version__, "weights": None}

    def build(self) -> DisFlow:
        """Ready to run."""
        return DisFlow(self.preset, confidence=self.confidence)


class DisFlow:
    """Dense Inverse Search (Kroeger et al., ECCV 2016) through OpenCV."""

    name = "dis"

    def __init__(self, preset: str = "medium", *, confidence: bool = False) -> None:
        cv2.setNumThreads(1)
        self.confidence = confidence
        self._dis = cv2.DISOpticalFlow.create(PRESETS[preset])

    def estimate(self, windows: Sequence[Window]) -> list[WindowFlow]:
        """flow_kchw [K, 2, S, S] float32 pixels, anchor -> neighbour, for each window."""
        return [self._window(window) for window in windows]

    def _window(self, window: Window) -> WindowFlow:
        anchor_hw = _grey(window.anchor_hwc)
        flows_chw, confidences_hw = [], []
        for neighbour_hwc in window.neighbours_khwc:
            neighbour_hw = _grey(neighbour_hwc)
            flow_hwc = self._dis.calc(anchor_hw, neighbour_hw, None)
            flows_chw.append(flow_hwc.transpose(2, 0, 1))
            if self.confidence:
                confidences_hw.append(_round_trip_confidence(flow_hwc, self._dis.calc(neighbour_hw, anchor_hw, None)))
        flow_kchw = np.ascontiguousarray(np.stack(flows_chw), dtype=np.float32)
        return WindowFlow(flow_kchw, np.stack(confidences_hw) if confidences_hw else None)


def _grey(square_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = min(square_hwc.shape[:2])
    if side < MIN_SIDE_PX:
        raise ValueError(f"dis needs squares of at least {MIN_SIDE_PX} px, got {side}; raise the flow size")
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(square_hwc), cv2.COLOR_RGB2GRAY))


def _round_trip_confidence(forward_hwc: NDArray[np.float32], backward_hwc: NDArray[np.float32]) -> NDArray[np.float32]:
    """exp(-|f(x) + b(x + f(x))|), [S, S] float32 in [0, 1]; 0 where the forward flow leaves the square."""
    height, width = forward_hwc.shape[:2]
    x_hw, y_hw = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    to_x, to_y = x_hw + forward_hwc[..., 0], y_hw + forward_hwc[..., 1]
    back_hwc = cv2.remap(backward_hwc, to_x, to_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    miss_px = np.linalg.norm(forward_hwc + back_hwc, axis=2)
    inside = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
    return np.where(inside, np.exp(-miss_px), 0.0).astype(np.float32)


def choose(name: str, options: EstimatorOptions, image_size: int) -> DisChoice:
    """Raises ValueError for weights, a device, a precision or an option that dis has no use for."""
    if options.weights is not None:
        raise ValueError(
            f"dis computes flow without a network and takes no weights (got {options.weights!r}); leave the weights out"
        )
    if options.device not in ("cpu", "auto"):
        raise ValueError(
            f"dis runs on the CPU only, not on {options.device!r}; leave the device out or choose another estimator"
        )
    if options.precision != "fp32":
        raise ValueError(f"dis computes in fp32 only, not in {options.precision!r}; leave the precision out")
    check_names("dis", options.extra, ("preset", "confidence"))
    preset = options.extra.get("preset", DisChoice.preset)
    if preset not in PRESETS:
        raise ValueError(f"dis has no preset {preset!r}; use one of {', '.join(PRESETS)}")
    return DisChoice(preset, as_switch("confidence", options.extra.get("confidence", "false")))

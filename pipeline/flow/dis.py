"""The default estimator `dis`: OpenCV's Dense Inverse Search flow on the grey flow square. No weights, no accelerator.

Windows come in as RGB squares; each (anchor, neighbour) pair becomes one flow field in pixels of that square.
Equal input gives equal bytes for one OpenCV version, whose number is part of the statement: one thread, and no state from one
pair to the next.

Options (`--flow-option NAME=VALUE`):
    preset      ultrafast | fast | medium (default): OpenCV's own presets.
    confidence  false | true: also compute the way back, and return how well the round trip closes
                (`consistency.py`). Doubles the cost. Default: true where confidence is to be kept, else false.

The way back is computed once, whether confidence, the reverse flow itself or both are wanted.
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
    """preset: a name of PRESETS. confidence: whether to say how well the round trip closes. reverse: whether to return the way back;
    not part of the statement, because it does not change the flow."""

    preset: str = "medium"
    confidence: bool = False
    reverse: bool = False
    name = "dis"
    smallest_side_px = MIN_SIDE_PX

    def statement(self) -> Statement:
        """`weights` is None: there are none. confidence: false, or the name of the formula."""
        confidence = "round-trip" if self.confidence else False
        return {"preset": self.preset, "confidence": confidence, "opencv": cv2.__version__, "weights": None}

    def build(self) -> DisFlow:
        """Ready to run."""
        return DisFlow(self.preset, confidence=self.confidence, reverse=self.reverse)


class DisFlow:
    """Dense Inverse Search (Kroeger et al., ECCV 2016) through OpenCV."""

    name = "dis"

    def __init__(self, preset: str = "medium", *, confidence: bool = False, reverse: bool = False) -> None:
        cv2.setNumThreads(1)
        self.confidence, self.reverse = confidence, reverse
        self._dis = cv2.DISOpticalFlow.create(PRESETS[preset])

    def estimate(self, windows: Sequence[Window]) -> list[WindowFlow]:
        """flow_kchw [K, 2, S, S] float32 pixels, anchor -> neighbour, for each window."""
        return [self._window(window) for window in windows]

    def _window(self, window: Window) -> WindowFlow:
        anchor_hw = _grey(window.anchor_hwc)
        flows_chw, confidences_hw, back_chw = [], [], []
        for neighbour_hwc in window.neighbours_khwc:
            neighbour_hw = _grey(neighbour_hwc)
            flow_hwc = self._dis.calc(anchor_hw, neighbour_hw, None)
            flows_chw.append(flow_hwc.transpose(2, 0, 1))
            if not (self.confidence or self.reverse):
                continue
            reverse_hwc = self._dis.calc(neighbour_hw, anchor_hw, None)
            if self.confidence:
                confidences_hw.append(_confidence(flow_hwc, reverse_hwc))
            if self.reverse:
                back_chw.append(reverse_hwc.transpose(2, 0, 1))
        flow_kchw = np.ascontiguousarray(np.stack(flows_chw), dtype=np.float32)
        reverse_kchw = np.ascontiguousarray(np.stack(back_chw), dtype=np.float32) if back_chw else None
        return WindowFlow(flow_kchw, np.stack(confidences_hw) if confidences_hw else None, reverse_kchw)


def _grey(square_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = min(square_hwc.shape[:2])
    if side < MIN_SIDE_PX:
        raise ValueError(f"dis needs squares of at least {MIN_SIDE_PX} px, got {side}; raise the flow size")
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(square_hwc), cv2.COLOR_RGB2GRAY))


def _confidence(forward_hwc: NDArray[np.float32], backward_hwc: NDArray[np.float32]) -> NDArray[np.float32]:
    """[S, S] float32 in [0, 1], by the formula of all estimators."""
    # Here, because torch takes seconds to import and dis without confidence has no other need of it.
    import torch

    from pipeline.flow.consistency import round_trip_confidence

    forward, backward = (torch.from_numpy(f).permute(2, 0, 1)[None] for f in (forward_hwc, backward_hwc))
    return round_trip_confidence(forward, backward)[0].numpy()


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
    confidence = as_switch("confidence", options.extra.get("confidence", str(options.keep_confidence)))
    return DisChoice(preset, confidence, options.keep_reverse)

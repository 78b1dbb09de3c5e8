"""The settings of a set that concern shot cuts: what they may be, and that a set without them does not name them.

Comes in: a detector, its threshold, a limit of cuts. Goes out: the threshold that counts, or a ValueError. `schema.Settings` holds them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

CUT_THRESHOLDS = {"content": 27.0, "adaptive": 3.0}
"""Detectors of shot cuts and the threshold of each where none is given; PySceneDetect's own."""

NAMES = ("cut_detector", "cut_threshold", "most_cuts_per_minute")


def cut_threshold(detector: str, threshold: float, most_per_minute: float) -> float:
    """The threshold given, or the detector's own for 0; 0 without a detector. Raises ValueError naming the value and what it may be."""
    if not detector:
        if threshold or most_per_minute:
            raise ValueError(
                f"a threshold ({threshold:g}) or limit ({most_per_minute:g} per minute) of cuts needs a detector of cuts: "
                f"{' or '.join(CUT_THRESHOLDS)}"
            )
        return 0.0
    if detector not in CUT_THRESHOLDS:
        raise ValueError(f"cut_detector is {detector!r}; give {' or '.join(CUT_THRESHOLDS)}")
    for name, value in (("cut_threshold", threshold), ("most_cuts_per_minute", most_per_minute)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value}; give a number from 0")
    return threshold or CUT_THRESHOLDS[detector]


def stated(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON has them, without those of cuts where no cuts are looked for: such sets keep the bytes that they always had."""
    return {name: value for name, value in settings.items() if settings["cut_detector"] or name not in NAMES}

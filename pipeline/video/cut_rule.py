"""What a set asks about shot cuts, as the decoding process is told. Light: both sides of it import this.

Comes in: the settings of a set. Goes out: the rule by which `cuts` finds cuts and `windows` refuses montages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec

from shards.settings import Settings


@dataclass(frozen=True)
class CutRule:
    """detector: content (a change from frame to frame of `threshold`, mean of hue, saturation and value in 0..255) or adaptive (a change
    `threshold` times that of the frames around it). most_per_minute: of cuts; 0 allows any number.
    """

    detector: str
    threshold: float
    most_per_minute: float = 0.0

    def too_many(self, cuts: int, duration_s: float) -> bool:
        """Whether a video is a montage. A part of a cut counts as one: 12 per minute are 2 in 10 s and 1 in 2 s."""
        return self.most_per_minute > 0 and cuts > math.ceil(self.most_per_minute * duration_s / 60)


def rule_of(settings: Settings) -> CutRule | None:
    """The rule of a set, None where cuts are not looked for. Raises ValueError where PySceneDetect is not installed."""
    if not settings.cut_detector:
        return None
    if find_spec("scenedetect") is None:
        raise ValueError(
            f"finding cuts ({settings.cut_detector}) needs PySceneDetect: pip install 'flowfeat-shards[cuts]', or leave --cuts out"
        )
    return CutRule(settings.cut_detector, settings.cut_threshold, settings.most_cuts_per_minute)

"""The settings of a shard set: everything that shapes its content, checked once.

Comes in: what the user asked for, or a manifest's `settings`. Goes out: `Settings`, which the writer states and every reader relies on.
`shards.schema` keeps its names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shards.cut_settings import cut_threshold, stated
from shards.offsets import check_offsets

NOISE_FLOOR_PX = 0.02
SMALLEST_SIDE, LARGEST_SIDE = 16, 4096  # pixels; a flow member says its sides in 1..4096
LARGEST_CHUNK = 10_000  # videos; a key has four digits for the position in the chunk

Statement = Mapping[str, str | int | float | bool | None]
"""What an estimator says about itself in the manifest: all that shapes its flow."""


@dataclass(frozen=True)
class Settings:
    """Everything that shapes the content of a set. Extending a set with other settings is refused.

    offsets: signed neighbour offsets in nominal frames. image_size, flow_size: side of the stored square image and
    of the flow grid, pixels. estimator: its name and what it says about itself (weights, iterations, ...). cut_detector: "" takes windows
    across shot cuts too; else one of CUT_THRESHOLDS, with its threshold (0: the detector's own) and most_cuts_per_minute (0: any number).
    keep_reverse: whether the flow back from each neighbour is stored too; a set without does not name it, and keeps its old bytes.
    Raises ValueError naming the value and what it may be: what exists has been checked, and nobody need check it again.
    """

    dataset: str
    estimator: Statement
    seed: int = 0
    offsets: tuple[int, ...] = (-2, -1, 1, 2)
    image_size: int = 448
    flow_size: int = 224
    jpeg_quality: int = 90
    chunk_videos: int = 256
    noise_floor_px: float = NOISE_FLOOR_PX
    keep_neighbours: bool = False
    keep_confidence: bool = False
    keep_reverse: bool = False
    cut_detector: str = ""
    cut_threshold: float = 0.0
    most_cuts_per_minute: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "offsets", check_offsets(self.offsets))
        if not SMALLEST_SIDE <= self.image_size <= LARGEST_SIDE:
            raise ValueError(f"image_size is {self.image_size}; give {SMALLEST_SIDE}..{LARGEST_SIDE} pixels")
        if not SMALLEST_SIDE <= self.flow_size <= self.image_size:
            raise ValueError(
                f"flow_size is {self.flow_size}; give {SMALLEST_SIDE}..{self.image_size} pixels "
                f"(flow is computed on the stored image made smaller, and image_size is {self.image_size})"
            )
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality is {self.jpeg_quality}; give 1..100")
        if not 1 <= self.chunk_videos <= LARGEST_CHUNK:
            raise ValueError(f"chunk_videos is {self.chunk_videos}; give 1..{LARGEST_CHUNK}")
        if not 0 <= self.noise_floor_px < math.inf:
            raise ValueError(f"noise_floor_px is {self.noise_floor_px}; give a number of pixels from 0")
        given = self.cut_detector, self.cut_threshold, self.most_cuts_per_minute
        object.__setattr__(self, "cut_threshold", cut_threshold(*given))

    def to_json(self) -> dict[str, Any]:
        named = stated({**self.__dict__, "offsets": list(self.offsets), "estimator": dict(self.estimator)})
        return {name: value for name, value in named.items() if name != "keep_reverse" or value}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Settings:
        return Settings(**{**data, "offsets": tuple(data["offsets"])})

    def differences(self, other: Settings) -> list[str]:
        """One "name: mine, not theirs" line per setting that differs."""
        mine, theirs = _flat(self.to_json()), _flat(other.to_json())
        names = sorted(mine.keys() | theirs.keys())
        return [
            f"{n}: {theirs.get(n)!r} in the set, {mine.get(n)!r} asked for"
            for n in names
            if mine.get(n) != theirs.get(n)
        ]


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value})
    return flat

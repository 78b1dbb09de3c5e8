"""Pairs of a shard set for the motion probe: which samples of which videos, and two views of each with their flow.

A shard set comes in (`shards.reader`); per video, a fixed choice of stored pairs, spread over its passes and neighbours. Views
are cut by the trainer's own functions, so that a probe sees crops as training does, and pictures go back to uint8, as every
source takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shards.reader import ShardSet, read_table
from shards.schema import INDEX, MANIFEST
from shards.storage import is_url
from trainer import Pixels, cut_views, denormalise, draw_boxes, px_per_unit

EXPECTED = "expected a shard set, as `python -m pipeline extract` writes it"
CROP_SCALE = (0.5, 0.75)
"""Of the paper's training: two such crops always share some of the picture."""


@dataclass(frozen=True)
class Pair:
    """Sample `sample` of a set with neighbour number `neighbour`. confidence: mean of the flow's own, 0 to 1, or None."""

    sample: int
    neighbour: int
    confidence: float | None


@dataclass(frozen=True)
class PairViews:
    """Two views of one pair: images_bhwc uint8 [1, s, s, 3], u_b2hw [1, 2, s, s] standardised flow. px_b211: pixels of the stored
    flow map per unit of standardised flow."""

    images1_bhwc: Tensor
    images2_bhwc: Tensor
    u1_b2hw: Tensor
    u2_b2hw: Tensor
    px_b211: Tensor


def open_shards(root: Path | str) -> ShardSet:
    """Of a folder or an address that fsspec opens. Raises ValueError where there is none."""
    if is_url(root):
        return ShardSet(root)
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root} is not a directory: {EXPECTED}")
    if not (root / MANIFEST).is_file():
        raise ValueError(f"{root} holds no {MANIFEST}: {EXPECTED}")
    return ShardSet(root)


def set_digest(shards: ShardSet) -> str:
    """Of the index: what a model's file notes about the set that it was trained on."""
    return str(shards.manifest.files[INDEX]["sha256"])


def pairs_by_video(shards: ShardSet, most: int) -> dict[str, list[Pair]]:
    """At most `most` stored pairs of each video, evenly over all that it has; videos without any are left out."""
    confidence = _confidence(shards)
    every: dict[str, list[Pair]] = {}
    for sample, video in enumerate(shards.video):
        found = [Pair(sample, k, _known(confidence[sample, k])) for k in shards.trainable(sample)]
        every.setdefault(video, []).extend(found)
    chosen = {}
    for video, pairs in sorted(every.items()):
        if pairs:
            places = np.unique(np.linspace(0, len(pairs) - 1, min(most, len(pairs))).round().astype(int))
            chosen[video] = [pairs[place] for place in places]
    return chosen


def _confidence(shards: ShardSet) -> NDArray[np.float64]:
    """[samples, neighbours], NaN where the set keeps none."""
    column = read_table(shards.place, INDEX, shards.manifest).column("confidence").to_pylist()
    rows = [[float("nan") if value is None else value for value in row] for row in column]
    return np.array(rows, np.float64).reshape(len(shards), len(shards.offsets))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def views_of(shards: ShardSet, pair: Pair, side_px: int, seed: int, device: torch.device) -> PairViews:
    """Two crops of the anchor, brought to side_px, with the flow of each; equal seeds give equal crops.

    Raises SampleError, a ValueError, naming a member that is damaged.
    """
    sample = shards.read(pair.sample, pair.neighbour)
    pixels = Pixels(
        torch.from_numpy(sample.image_hwc)[None].to(device),
        torch.from_numpy(sample.flow_chw)[None].to(device),
        torch.tensor([sample.quantum_px], dtype=torch.float32, device=device),
    )
    source_px = shards.manifest.settings.image_size
    position = pair.sample * len(shards.offsets) + pair.neighbour
    boxes = draw_boxes(seed, np.array([position]), CROP_SCALE, source_px)
    views = cut_views(pixels, boxes, view_size=side_px, source_size=source_px)
    assert views.u1 is not None and views.u2 is not None and pixels.flow_b2hw is not None
    px = px_per_unit(pixels.flow_b2hw.float() * sample.quantum_px)
    return PairViews(_uint8(views.image1, device), _uint8(views.image2, device), views.u1, views.u2, px)


def _uint8(images_bchw: Tensor, device: torch.device) -> Tensor:
    return torch.stack([denormalise(image) for image in images_bchw]).to(device)


def spread(count: int, most: int) -> Sequence[int]:
    """At most `most` places out of `count`, evenly."""
    found: list[int] = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int)).tolist()
    return found

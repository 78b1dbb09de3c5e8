"""Pictures of the depth probe: measured and predicted depth on one scale of colours, and the normals that follow from them.

Depth maps in metres come in from `depth.py`, pictures go to the unit's sink.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from probes.data.rgbd import Pair
from probes.drawing import depth_picture, display_size, normal_picture
from probes.metrics.depth import surface_normals
from probes.sources.features import Source
from probes.task import Context

NORMAL_STEP_SHARE = 1 / 48
LARGEST_JUMP = 0.1
"""A neighbour farther from a pixel's depth than this share of it lies on another surface."""
Floats = NDArray[np.float32]


def normal_step_px(side: int) -> int:
    """How far on either side of a pixel the depths are whose differences make its normal."""
    return max(1, round(NORMAL_STEP_SHARE * side))


class Drawing:
    """Pictures of one test picture: depth maps on one scale, and normals where there is a camera."""

    def __init__(self, pair: Pair, truth: Floats, context: Context) -> None:
        self.context, self.group, self.camera = context, pair.name, pair.square_camera()
        self.size = display_size(*truth.shape)
        near, far = (float(value) for value in np.quantile(truth[truth > 0], (0.02, 0.98)))
        self.range_m = near, far
        context.pictures.save(self.group, "picture", pair.image().resize(self.size))
        self._save(truth, f"measured depth, {near:.2f} m to {far:.2f} m,", "normals of measured depth", None)

    def draw(self, predicted: Floats, source: Source) -> None:
        self._save(predicted, "depth", "normals", source)

    def _save(self, depth: Floats, depth_caption: str, normals_caption: str, source: Source | None) -> None:
        pictures = self.context.pictures
        pictures.save(self.group, depth_caption, depth_picture(depth, self.range_m, self.size), source)
        if self.camera is not None:
            normals, known = surface_normals(
                depth, self.camera, step=normal_step_px(len(depth)), largest_jump=LARGEST_JUMP
            )
            pictures.save(self.group, normals_caption, normal_picture(normals, known, self.size), source)

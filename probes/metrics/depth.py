"""Scores of a depth map: RMSE and delta_1..3, and the angles between the surface normals that follow from it.

Predicted and measured depth come in picture by picture, [h, w] in metres with 0 where nothing was measured; scores per
picture go out, and `mean_scores` averages them over pictures, as Probe3D does (El Banani et al., CVPR 2024) and FlowFeat after
it (NeurIPS 2025, section B.3). No Eigen crop, no median alignment; `scale_and_shift` is the optional alignment.

    RMSE = sqrt(mean (d - d*)^2)      delta_i = share of pixels with max(d / d*, d* / d) < 1.25^i

Normals come from depth and the camera: a pixel (x, y) at depth z is the point z ((x - cx) / fx, (y - cy) / fy, 1), and the
normal is the cross product of the differences between the points `step` pixels below and above, and to the right and left;
it faces the camera and is exact on planes. Angles are scored by mean, RMSE and the shares below 11.25, 22.5 and 30
degrees (Fouhey et al., ICCV 2013). Camera axes: x right, y down, z ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

ANGLES_DEG = (11.25, 22.5, 30.0)


@dataclass(frozen=True)
class Camera:
    """Pinhole intrinsics in pixels; the first pixel's centre is at (0, 0)."""

    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True)
class DepthScores:
    """Of one picture, or the mean over several: metres, and shares in [0, 1]."""

    rmse_m: float
    delta1: float
    delta2: float
    delta3: float


@dataclass(frozen=True)
class NormalScores:
    """Of one picture, or the mean over several: degrees, and shares in [0, 1]."""

    mean_deg: float
    rmse_deg: float
    below_11_25: float
    below_22_5: float
    below_30: float


Scores = TypeVar("Scores", DepthScores, NormalScores)


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """The plain mean over pictures.

    Raises
    ------
    ValueError: no picture.
    """
    if not scores:
        raise ValueError("no picture was scored: none has a valid pixel")
    kind = type(scores[0])
    return kind(*(float(np.mean([getattr(score, field.name) for score in scores])) for field in fields(kind)))


def _compared(predicted_hw: NDArray, truth_hw: NDArray, farthest_m: float | None) -> tuple[Floats, Floats]:
    """Prediction and truth in float64 at the pixels where the truth is valid."""
    if predicted_hw.shape != truth_hw.shape:
        raise ValueError(f"a predicted depth of {predicted_hw.shape} for a measured one of {truth_hw.shape}")
    valid = truth_hw > 0
    if farthest_m is not None:
        valid &= truth_hw <= farthest_m
    predicted = predicted_hw[valid].astype(np.float64)
    if not np.isfinite(predicted).all():
        raise ValueError("the predicted depth is not finite (NaN or infinity)")
    return predicted, truth_hw[valid].astype(np.float64)


def scale_and_shift(predicted_hw: NDArray, truth_hw: NDArray, farthest_m: float | None = None) -> Floats:
    """a * predicted + b [h, w], with the a and b that bring it closest to the truth's valid pixels (least squares).

    A constant prediction is only shifted.
    """
    predicted, truth = _compared(predicted_hw, truth_hw, farthest_m)
    if predicted.size == 0:
        return predicted_hw.astype(np.float64)
    centred = predicted - predicted.mean()
    spread = float(centred @ centred)
    a = float(centred @ truth) / spread if spread > 0 else 1.0
    return a * predicted_hw.astype(np.float64) + (float(truth.mean()) - a * float(predicted.mean()))


def score_depth(predicted_hw: NDArray, truth_hw: NDArray, farthest_m: float | None = None) -> DepthScores | None:
    """RMSE and delta_1..3 over the valid pixels (0 < truth <= farthest_m); None if there is none.

    A prediction that isn't positive is outside every delta.
    """
    predicted, truth = _compared(predicted_hw, truth_hw, farthest_m)
    if predicted.size == 0:
        return None
    # Positive or not, compared by products: no division by zero, and a negative depth is never near.
    larger, smaller = np.maximum(predicted, truth), np.minimum(predicted, truth)
    shares = [float(np.mean(larger < smaller * 1.25**i)) for i in (1, 2, 3)]
    return DepthScores(float(np.sqrt(np.mean((predicted - truth) ** 2))), *shares)


def points(depth_hw: NDArray, camera: Camera) -> Floats:
    """[h, w, 3]: the point in metres that every pixel shows."""
    depth = depth_hw.astype(np.float64)
    y, x = np.mgrid[0 : depth.shape[0], 0 : depth.shape[1]]
    return np.stack([depth * (x - camera.cx) / camera.fx, depth * (y - camera.cy) / camera.fy, depth], axis=-1)


def surface_normals(
    depth_hw: NDArray, camera: Camera, *, step: int = 1, largest_jump: float | None = None
) -> tuple[Floats, Mask]:
    """Unit normals [h, w, 3] that face the camera, and where they are known [h, w].

    Known is a normal whose five pixels all have a depth; with `largest_jump`, also only where no neighbour is farther from
    the pixel's depth than that share of it, which leaves out occlusion edges. A larger `step` calms a noisy sensor.
    Unknown normals are 0.
    """
    h, w = depth_hw.shape
    normals, known = np.zeros((h, w, 3)), np.zeros((h, w), dtype=bool)
    if min(h, w) <= 2 * step:
        return normals, known
    place = points(depth_hw, camera)
    middle = (slice(step, -step), slice(step, -step))
    left, right = (middle[0], slice(None, -2 * step)), (middle[0], slice(2 * step, None))
    above, below = (slice(None, -2 * step), middle[1]), (slice(2 * step, None), middle[1])
    across, down = place[right] - place[left], place[below] - place[above]
    # y down and x right: this order of the two gives normals that face the camera. Always: with rays r, depths z and the
    # axes' units e, (down x across) . r = (z_above + z_below) (z_left + z_right) (e_y x e_x) . r step^2 / (fx fy) < 0.
    normal = np.cross(down, across)
    here = depth_hw[middle].astype(np.float64)
    good = here > 0
    for side in (left, right, above, below):
        good &= depth_hw[side] > 0
        if largest_jump is not None:
            good &= np.abs(depth_hw[side] - here) <= largest_jump * here
    length = np.where(good, np.linalg.norm(normal, axis=-1), 1.0)
    normals[middle] = np.where(good[..., None], normal / length[..., None], 0.0)
    known[middle] = good
    return normals, known


def angles_deg(one_hwc: Floats, other_hwc: Floats) -> Floats:
    """Angle in degrees between vectors [..., 3]; atan2 keeps the digits that an arc cosine loses near 0."""
    sine = np.linalg.norm(np.cross(one_hwc, other_hwc), axis=-1)
    return np.degrees(np.arctan2(sine, np.sum(one_hwc * other_hwc, axis=-1)))


def score_normals(
    predicted_hw: NDArray,
    truth_hw: NDArray,
    camera: Camera,
    *,
    step: int = 1,
    largest_jump: float | None = None,
    farthest_m: float | None = None,
) -> NormalScores | None:
    """Angles between the normals of two depth maps, over the pixels where the truth's is known; None if there is none.

    Where the prediction has no normal (a depth that isn't positive) the angle is 90 degrees.
    """
    _compared(predicted_hw, truth_hw, farthest_m)
    if farthest_m is not None:
        truth_hw = np.where(truth_hw <= farthest_m, truth_hw, 0)
    expected, scored = surface_normals(truth_hw, camera, step=step, largest_jump=largest_jump)
    if not scored.any():
        return None
    found, known = surface_normals(predicted_hw, camera, step=step)
    angles = np.where(known[scored], angles_deg(found[scored], expected[scored]), 90.0)
    shares = [float(np.mean(angles < limit)) for limit in ANGLES_DEG]
    return NormalScores(float(angles.mean()), float(np.sqrt(np.mean(angles**2))), *shares)

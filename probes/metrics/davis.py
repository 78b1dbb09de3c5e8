"""Region similarity J and boundary accuracy F of a predicted mask, and their statistics over a sequence.

Label maps come in from `vos.py` frame by frame, one number per object and frame goes back; `summarise` turns the series of a
sequence into mean, recall and decay.

The definitions are those of the DAVIS benchmark (Perazzi et al., CVPR 2016; Pont-Tuset et al., 2017), written anew: J is the
intersection over union; F is the harmonic mean of boundary precision and recall, where a boundary pixel counts as found when
the other boundary passes within a radius of 0.8 % of the picture's diagonal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

BOUNDARY_TOLERANCE = 0.008
"""Radius within which two boundaries match, as a share of the picture's diagonal (DAVIS benchmark)."""

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """A metric over the frames of one object: all three are shares in [0, 1] except `decay`, which may be negative."""

    mean: float
    recall: float
    decay: float


def region_similarity(truth: Mask, predicted: Mask) -> float:
    """J: |A and B| / |A or B| of two masks [H, W]; 1 if both are empty."""
    assert truth.shape == predicted.shape, (truth.shape, predicted.shape)
    union = np.count_nonzero(truth | predicted)
    return 1.0 if union == 0 else np.count_nonzero(truth & predicted) / union


def boundary_map(mask: Mask) -> Mask:
    """Pixels [H, W] that differ from their right, lower or lower-right neighbour.

    The last row looks right only, the last column down only and the last corner nowhere, so a mask that covers the
    whole frame has no boundary.
    """
    edge = np.zeros_like(mask)
    right = mask[:, :-1] ^ mask[:, 1:]
    below = mask[:-1, :] ^ mask[1:, :]
    edge[:, :-1] |= right
    edge[:-1, :] |= below
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edge


def tolerance_px(height: int, width: int, share: float = BOUNDARY_TOLERANCE) -> int:
    """Matching radius in pixels: ceil(share * diagonal), 8 px at 480x854."""
    return math.ceil(share * math.hypot(height, width))


def _found(these: Mask, others: Mask, radius_px: int) -> float:
    """Share of the boundary pixels of `these` that lie in the disk dx^2 + dy^2 <= r^2 around some pixel of `others`.

    "Inside the dilation by a disk" and "no farther than r" are the same thing, so one exact Euclidean distance
    transform replaces a dilation by a 17x17 element.
    """
    distance = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Squared distances are integers and r^2 and r^2 + 1 are far apart in float32: half way between is a safe threshold.
    near = distance[these] <= math.sqrt(radius_px**2 + 0.5)
    return float(np.count_nonzero(near)) / near.size


def boundary_accuracy(truth: Mask, predicted: Mask, share: float = BOUNDARY_TOLERANCE) -> float:
    """F of two masks [H, W]: 2PR / (P + R) of their boundaries, 1 if both boundaries are empty, 0 if one is."""
    assert truth.shape == predicted.shape, (truth.shape, predicted.shape)
    return edge_accuracy(
        boundary_map(truth), boundary_map(predicted), tolerance_px(truth.shape[0], truth.shape[1], share)
    )


def edge_accuracy(edge_truth: Mask, edge_predicted: Mask, radius_px: int) -> float:
    """F of two sets of edge pixels [H, W], matched within a radius: 1 if both are empty, 0 if one is."""
    both = edge_truth | edge_predicted
    if not both.any():
        return 1.0
    if not edge_truth.any() or not edge_predicted.any():
        return 0.0
    # Distances between boundary pixels don't change when the empty margin around all of them is cut away.
    rows, columns = np.flatnonzero(both.any(axis=1)), np.flatnonzero(both.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    precision = _found(edge_predicted[box], edge_truth[box], radius_px)
    recall = _found(edge_truth[box], edge_predicted[box], radius_px)
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def score_frame(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], objects: int) -> Floats:
    """J and F of objects 1..`objects` in one pair of label maps [H, W]: float64 [2, objects], rows J and F."""
    scores = np.empty((2, objects))
    for column, label in enumerate(range(1, objects + 1)):
        truth_mask, predicted_mask = truth == label, predicted == label
        scores[0, column] = region_similarity(truth_mask, predicted_mask)
        scores[1, column] = boundary_accuracy(truth_mask, predicted_mask)
    return scores


def summarise(series: Floats) -> Statistics:
    """Mean, recall (share of frames above 0.5) and decay of one metric over the frames of one object.

    Decay is the mean over the first quarter less the mean over the last; the quarters share their end frames, as in the
    benchmark. (The benchmark's tool keeps the frame numbers in uint8 and so fails beyond 256 frames; this does not.)

    Raises
    ------
    ValueError: no frames.
    """
    n = len(series)
    if n == 0:
        raise ValueError("no frames to summarise: a sequence needs at least three, its first and last are not scored")
    edges = np.round(np.linspace(1, n, 5) + 1e-10).astype(np.int64) - 1
    first, last = series[edges[0] : edges[1] + 1], series[edges[3] : edges[4] + 1]
    return Statistics(
        mean=float(series.mean()),
        recall=float(np.mean(series > 0.5)),
        decay=float(first.mean() - last.mean()),
    )

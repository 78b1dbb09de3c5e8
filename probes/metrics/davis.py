"""Region similarity J and boundary accuracy F of a predicted mask, and their statistics over a sequence.

Label maps come in from `vos.py` frame by frame, one number per object and frame goes back; `summarise` turns the series of a
sequence into mean, recall and decay.

The definitions are those of the DAVIS benchmark (Perazzi et al., CVPR 2016; Pont-Tuset et al., 2017), written anew: J is the
intersection over union; F is the harmonic mean of boundary precision and recall, where a boundary pixel counts as found when
the other boundary passes within a radius of 0.8 % of the picture's diagonal.

Masks are scored as long integers (`bit_masks.py`); `bench/jf.py` compares speed and scores with arrays and OpenCV.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.metrics.bit_masks import BitLayout, Mask

BOUNDARY_TOLERANCE = 0.008
"""Radius within which two boundaries match, as a share of the picture's diagonal (DAVIS benchmark)."""

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
    layout = BitLayout(mask.shape[0], mask.shape[1], 0)
    return layout.mask(layout.boundary(layout.bits(mask)))


def tolerance_px(height: int, width: int, share: float = BOUNDARY_TOLERANCE) -> int:
    """Matching radius in pixels: ceil(share * diagonal), 8 px at 480x854."""
    return math.ceil(share * math.hypot(height, width))


def boundary_accuracy(truth: Mask, predicted: Mask, share: float = BOUNDARY_TOLERANCE) -> float:
    """F of two masks [H, W]: 2PR / (P + R) of their boundaries, 1 if both boundaries are empty, 0 if one is."""
    assert truth.shape == predicted.shape, (truth.shape, predicted.shape)
    return edge_accuracy(
        boundary_map(truth), boundary_map(predicted), tolerance_px(truth.shape[0], truth.shape[1], share)
    )


def edge_accuracy(edge_truth: Mask, edge_predicted: Mask, radius_px: int) -> float:
    """F of two sets of edge pixels [H, W], matched within a radius: 1 if both are empty, 0 if one is."""
    assert edge_truth.shape == edge_predicted.shape, (edge_truth.shape, edge_predicted.shape)
    layout = BitLayout(edge_truth.shape[0], edge_truth.shape[1], radius_px)
    return _edge_accuracy(layout.bits(edge_truth), layout.bits(edge_predicted), layout)


def _edge_accuracy(truth: int, predicted: int, layout: BitLayout) -> float:
    if not truth or not predicted:
        return float(truth == predicted)
    precision = (predicted & layout.dilated(truth)).bit_count() / predicted.bit_count()
    recall = (truth & layout.dilated(predicted)).bit_count() / truth.bit_count()
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def _around(mask: Mask) -> tuple[slice, slice]:
    """The smallest box that holds a mask which isn't empty, and a pixel more on every side where there is one.

    Outside it nothing counts: boundaries of masks inside it are the same whether they are taken in the box or in the frame.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    top, bottom = max(int(rows[0]) - 1, 0), min(int(rows[-1]) + 2, len(mask))
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    return slice(top, bottom), slice(max(int(columns[0]) - 1, 0), min(int(columns[-1]) + 2, mask.shape[1]))


def score_frame(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], objects: int) -> Floats:
    """J and F of objects 1..`objects` in one pair of label maps [H, W]: float64 [2, objects], rows J and F."""
    assert truth.shape == predicted.shape, (truth.shape, predicted.shape)
    scores = np.ones((2, objects))
    radius_px = tolerance_px(truth.shape[0], truth.shape[1])
    for column, label in enumerate(range(1, objects + 1)):
        truth_mask, predicted_mask = truth == label, predicted == label
        union = truth_mask | predicted_mask
        if not union.any():
            continue
        box = _around(union)
        layout = BitLayout(box[0].stop - box[0].start, box[1].stop - box[1].start, radius_px)
        one, other = layout.bits(truth_mask[box]), layout.bits(predicted_mask[box])
        scores[0, column] = (one & other).bit_count() / (one | other).bit_count()
        scores[1, column] = _edge_accuracy(layout.boundary(one), layout.boundary(other), layout)
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

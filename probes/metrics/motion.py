"""Edges of motion: where flow jumps, and how well a readout's jumps lie on the true ones.

Flows come in as [2, h, w] in standardised units (zero mean, unit deviation per channel over the whole map), a share goes back.
The strength of an edge is the length of the forward differences of both channels in both directions. True edges are where it
exceeds `TRUE_JUMP`; of the readout as many pixels are taken at most, its strongest, so that its scale plays no part (ridge regression
shrinks it). They are matched as DAVIS matches boundaries (`davis.py`): F within 0.8 % of the diagonal, 3 px at 224.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from probes.metrics.davis import Mask, edge_accuracy, tolerance_px

TRUE_JUMP = 0.25
"""In standard deviations of the flow, per pixel: an object's edge of 2 deviations, spread over 8 pixels, still counts."""
FLAT = 1e-3
"""Below this share of the largest strength there is no edge: a readout of few values is flat between its jumps."""
FEWEST_SHARE = 1e-3
"""Below this share of edge pixels a flow has no edges to be found."""

Flow = NDArray[np.floating]


def edge_strength(flow_chw: Flow) -> NDArray[np.float64]:
    """[h - 1, w - 1], in units of the flow per pixel."""
    flow = np.asarray(flow_chw, np.float64)
    right = flow[:, :-1, 1:] - flow[:, :-1, :-1]
    down = flow[:, 1:, :-1] - flow[:, :-1, :-1]
    strength: NDArray[np.float64] = np.sqrt((right**2 + down**2).sum(axis=0))
    return strength


def true_edges(flow_chw: Flow) -> Mask | None:
    """[h - 1, w - 1], or None for a flow without edges."""
    edges = edge_strength(flow_chw) > TRUE_JUMP
    return edges if np.count_nonzero(edges) >= FEWEST_SHARE * edges.size else None


def strongest(strength_hw: NDArray[np.float64], count: int) -> Mask:
    """The `count` pixels of the largest strength, of equal ones the first; fewer where the rest is flat."""
    picked = np.zeros(strength_hw.size, bool)
    picked[np.argsort(-strength_hw, axis=None, kind="stable")[:count]] = True
    return picked.reshape(strength_hw.shape) & (strength_hw > FLAT * strength_hw.max())


def motion_edge_accuracy(truth_chw: Flow, strength_hw: NDArray[np.float64]) -> float | None:
    """F of the strongest pixels of `strength_hw` against the edges of the true flow; None for a flow without edges."""
    edges = true_edges(truth_chw)
    if edges is None:
        return None
    predicted = strongest(strength_hw, int(np.count_nonzero(edges)))
    return edge_accuracy(edges, predicted, tolerance_px(truth_chw.shape[-2], truth_chw.shape[-1]))

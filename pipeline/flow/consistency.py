"""Confidence for estimators that give none themselves: does going there and back again return to the start?

Shape legend: P pairs, H W rows and columns.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from pipeline.flow.networks.correlation import cell_grid

# Tolerance of the usual occlusion test (Sundaram, Brox & Keutzer, ECCV 2010): 0.01·(|f|² + |b|²) + 0.5 px².
_RELATIVE, _ABSOLUTE_PX2 = 0.01, 0.5


def round_trip_confidence(forward_p2hw: Tensor, backward_p2hw: Tensor) -> Tensor:
    """exp(-|f(x) + b(x + f(x))|² / tolerance), [P, H, W] in [0, 1]; 1/e is where the usual occlusion test draws the line.

    forward, backward: [P, 2, H, W] pixels, of the two directions of the same pairs. 0 where the target lies
    outside the frame. Not finite where the flow is not.
    """
    rows, columns = forward_p2hw.shape[2:]
    target_p2hw = cell_grid(rows, columns, forward_p2hw.device) + forward_p2hw
    size = torch.tensor((columns - 1, rows - 1), device=forward_p2hw.device).view(1, 2, 1, 1)
    relative_p2hw = 2 * target_p2hw / size - 1
    back_p2hw = grid_sample(
        backward_p2hw, relative_p2hw.permute(0, 2, 3, 1), mode="bilinear", padding_mode="border", align_corners=True
    )
    missed = (forward_p2hw + back_p2hw).square().sum(1)
    lengths = forward_p2hw.square().sum(1) + back_p2hw.square().sum(1)
    confidence = torch.exp(-missed / (_RELATIVE * lengths + _ABSOLUTE_PX2))
    outside = (relative_p2hw.abs() > 1).any(dim=1)
    return torch.where(outside, torch.zeros_like(confidence), confidence)

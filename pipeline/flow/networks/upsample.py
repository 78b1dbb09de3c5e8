"""From the 1/8 grid back to pixels: convex combination (RAFT section 3.3) or bilinear (RAFT small).

Shape legend: P pairs, C channels, h w rows and columns at 1/8, k 9 neighbours, s 64 sub-pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

STRIDE = 8  # pixels per cell of the internal grid


def convex_upsample(values_pchw: Tensor, logits_pmhw: Tensor) -> Tensor:
    """Each of a cell's 8×8 pixels is a softmax-weighted mean of the 3×3 cells around it.

    values: [P, C, h, w] float32, already in output units. logits: [P, 576, h, w]; channel 64·k + 8·a + b is
    neighbour k (row slow) of sub-row a, sub-column b. Returns [P, C, 8h, 8w] float32. Cells beyond the
    border count as zero, as in training: it pulls border pixels towards 0 and is not to be "repaired".
    """
    pairs, channels, rows, columns = values_pchw.shape
    weights_pkshw = logits_pmhw.float().view(pairs, 9, STRIDE * STRIDE, rows, columns).softmax(dim=1)
    padded = pad(values_pchw, (1, 1, 1, 1))
    out_pcshw = torch.zeros((), device=values_pchw.device)
    for k in range(9):
        neighbour_pchw = padded[:, :, k // 3 : k // 3 + rows, k % 3 : k % 3 + columns]
        out_pcshw = out_pcshw + weights_pkshw[:, k, None] * neighbour_pchw[:, :, None]
    out = out_pcshw.view(pairs, channels, STRIDE, STRIDE, rows, columns).permute(0, 1, 4, 2, 5, 3)
    return out.reshape(pairs, channels, STRIDE * rows, STRIDE * columns)


def bilinear_upsample(values_pchw: Tensor) -> Tensor:
    """[P, C, h, w] → [P, C, 8h, 8w] with the corners aligned, as RAFT small does it."""
    rows, columns = values_pchw.shape[2:]
    size = (STRIDE * rows, STRIDE * columns)
    return interpolate(values_pchw, size=size, mode="bilinear", align_corners=True)

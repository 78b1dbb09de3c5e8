"""All-pairs correlation of two feature maps, and reading windows out of it.

Feature maps of the two frames come from the shared encoder; what leaves is, for every cell of
the first frame, the similarity of a (2r+1)² window around its current target on four scales.

The coarser levels are made by pooling the second frame's features: averaging commutes with the
inner product, so this equals pooling the volume (RAFT section 3.2) at an eighth of the traffic.

Reading is bilinear with zeros outside the map. Bilinear interpolation is a product of two hat
functions, so a window is  X · V · Yᵀ  with X[t, x] = max(0, 1 - |c_x + t - r - x|): two small
matrix products per cell, no gather. A tap outside the map has no column, which is the zero
padding; a non-finite target makes a non-finite window, which is how it should be noticed.

Shape legend: P pairs, D channels, h w rows and columns at 1/8, q = h·w cells, T = 2r+1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pipeline.flow.networks.plans import SlowAxis

LEVELS = 4


class CorrelationPyramid:
    """The volume of P pairs on four levels, kept in float32.

    first_pdhw, second_pdhw: [P, D, h, w] features. slow_axis: which offset varies slowly over the
    T² channels of a level: x in RAFT and SEA-RAFT, y in SMURF. Memory: 4·q·(q + q/4 + ...) bytes a pair.
    """

    def __init__(self, first_pdhw: Tensor, second_pdhw: Tensor, radius: int, slow_axis: SlowAxis) -> None:
        self.radius, self.slow_axis = radius, slow_axis
        pairs, channels, self.rows, self.columns = first_pdhw.shape
        first_pqd = first_pdhw.float().flatten(2).transpose(1, 2) / math.sqrt(channels)
        second_pdhw = second_pdhw.float()
        self.levels_nhw: list[Tensor] = []
        for level in range(LEVELS):
            if level > 0:
                second_pdhw = avg_pool2d(second_pdhw, 2)  # an odd last row or column is dropped
            volume_pqs = first_pqd @ second_pdhw.flatten(2)
            self.levels_nhw.append(volume_pqs.view(pairs * first_pqd.shape[1], *second_pdhw.shape[2:]))
        device = first_pdhw.device
        self._offsets_t = torch.arange(-radius, radius + 1, device=device, dtype=torch.float32)
        self._grid_q2 = cell_grid(self.rows, self.columns, device).flatten(1).T

    def lookup(self, flow_p2hw: Tensor) -> Tensor:
        """Windows around p + flow. flow: [P, 2, h, w] float32 in cells → [P, 4·T², h, w] float32 (channels last)."""
        assert flow_p2hw.dtype == torch.float32, "coordinates are kept in float32 in every precision"
        targets_n2 = (flow_p2hw.flatten(2).transpose(1, 2) + self._grid_q2).reshape(-1, 2)
        windows = [self._window(level, targets_n2 / 2**level) for level in range(LEVELS)]
        features_phwc = torch.cat(windows, dim=1).view(flow_p2hw.shape[0], self.rows, self.columns, -1)
        return features_phwc.permute(0, 3, 1, 2)

    def _window(self, level: int, targets_n2: Tensor) -> Tensor:
        """One level's windows: [N, T²], sampled at target / 2^level + offset, no half-pixel correction."""
        volume_nhw = self.levels_nhw[level]
        x_ntw = self._hats(targets_n2[:, 0], volume_nhw.shape[2])
        y_nth = self._hats(targets_n2[:, 1], volume_nhw.shape[1])
        rows_ntw = torch.bmm(y_nth, volume_nhw)
        if self.slow_axis == "y":
            return torch.bmm(rows_ntw, x_ntw.transpose(1, 2)).flatten(1)
        return torch.bmm(x_ntw, rows_ntw.transpose(1, 2)).flatten(1)

    def _hats(self, centre_n: Tensor, size: int) -> Tensor:
        """Bilinear weights of the T offsets around each centre along an axis of `size` cells: [N, T, size]."""
        cells = torch.arange(size, device=centre_n.device, dtype=torch.float32)
        position_nt = centre_n[:, None] + self._offsets_t
        return (1 - (position_nt[:, :, None] - cells).abs()).clamp(min=0)


def cell_grid(rows: int, columns: int, device: torch.device) -> Tensor:
    """[2, rows, columns] float32: channel 0 the column, channel 1 the row; integers are sample centres."""
    y, x = torch.meshgrid(
        torch.arange(rows, device=device, dtype=torch.float32),
        torch.arange(columns, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack((x, y))

"""Features as colours: three principal components become red, green and blue.

A basis is fitted once, to one map, and then colours any map of the same features, so that a colour means the same feature
in every frame of a video. Maps come in as [C, h, w], images go out as uint8 [h, w, 3].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

BASIS_SAMPLES = 20_000
"""Pixels that a basis is fitted on."""


@dataclass(frozen=True)
class ColorBasis:
    """Three principal directions of a feature map, and the range of each that becomes 0..255."""

    mean_c: Tensor
    directions_c3: Tensor
    low_3: Tensor
    high_3: Tensor

    @staticmethod
    def fit(map_chw: Tensor) -> ColorBasis:
        """Fit to one map [C, h, w]. The range is that of the middle 98 % of pixels; signs are fixed, so colours repeat."""
        flat = map_chw.detach().flatten(1)
        stride = max(1, flat.shape[1] // BASIS_SAMPLES)
        sample = flat[:, ::stride].double().cpu()
        mean = sample.mean(dim=1)
        centred = sample - mean[:, None]
        directions = torch.linalg.eigh(centred @ centred.T)[1].flip(1)[:, :3]
        if directions.shape[1] < 3:
            directions = F.pad(directions, (0, 3 - directions.shape[1]))
        biggest = directions.abs().argmax(dim=0)
        directions = directions * torch.where(directions.gather(0, biggest[None]) < 0, -1.0, 1.0)
        projected = directions.T @ centred
        low, high = projected.quantile(0.01, dim=1), projected.quantile(0.99, dim=1)
        return ColorBasis(mean.to(flat), directions.to(flat), low, high)

    def colors(self, map_chw: Tensor) -> NDArray[np.uint8]:
        """uint8 [h, w, 3] of a map with the same channels."""
        flat = map_chw.detach().flatten(1)
        projected = (self.directions_c3.T @ (flat - self.mean_c[:, None])).double().cpu()
        span = (self.high_3 - self.low_3).clamp(min=1e-12)
        unit = ((projected - self.low_3[:, None]) / span[:, None]).clamp(0, 1)
        pixels = (unit * 255).round().to(torch.uint8).T.reshape(*map_chw.shape[1:], 3)
        return np.asarray(pixels.numpy())


def pca_picture(map_chw: Tensor) -> NDArray[np.uint8]:
    """A map in its own colours: equal maps give equal images, colours of different images are not comparable."""
    return ColorBasis.fit(map_chw.detach().float()).colors(map_chw.detach().float())

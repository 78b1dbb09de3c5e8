"""Rotary positions of DINOv3: a token grid in, the sines and cosines that turn queries and keys out.

Nothing is added to the tokens; inside every attention the patches' queries and keys are turned by angles that grow with their place,
so that a product of two depends on the way from one to the other. Used by `trainer.encoder`; the buffer is a key of the
published files.

Shape legend: h channels of one head, N = gh*gw patches, P prefix tokens (which have no place and stay as they are).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

LONGEST_PERIOD = 100.0


class Rotation(NamedTuple):
    """sin_nh, cos_nh: [P + N, h], zero and one for the prefix."""

    sin_nh: Tensor
    cos_nh: Tensor

    def turn(self, x_bhnd: Tensor) -> Tensor:
        """Queries or keys [B, heads, P + N, h], turned: channel i of the first half pairs with channel i of the second.

        The products are formed in the angles' type (float32 beside bfloat16 tokens); the type that came in goes out.
        """
        wide = x_bhnd.to(self.sin_nh.dtype)
        first, second = wide.chunk(2, dim=-1)
        return (wide * self.cos_nh + torch.cat((-second, first), dim=-1) * self.sin_nh).to(x_bhnd.dtype)


class RotaryPositions(nn.Module):
    """Angles of a grid. Coordinates run from -1 to 1 along each side by itself, taken at the middles of the patches.

    A head's half holds a quarter of channels for the row and a quarter for the column; the periods rise geometrically from
    1 towards `LONGEST_PERIOD`. The published files hold them rounded to bfloat16, so they are read, not computed.
    """

    periods: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.register_buffer("periods", torch.empty(head_dim // 4))
        self.fill()

    @torch.no_grad()
    def fill(self) -> None:
        """The periods of a network that is not read from a file."""
        quarter = len(self.periods)
        self.periods.copy_(LONGEST_PERIOD ** (torch.arange(quarter, dtype=torch.float64) / quarter))

    def forward(self, gh: int, gw: int, prefix_tokens: int) -> Rotation:
        """The rotation of a gh x gw grid behind `prefix_tokens` others, at least in float32."""
        periods = self.periods.to(torch.promote_types(self.periods.dtype, torch.float32))
        rows, columns = (
            2 * (torch.arange(side, device=periods.device, dtype=periods.dtype) + 0.5) / side - 1 for side in (gh, gw)
        )
        by_row = (2 * math.pi * rows[:, None] / periods)[:, None].expand(-1, gw, -1)
        by_column = (2 * math.pi * columns[:, None] / periods)[None].expand(gh, -1, -1)
        angles_nh = torch.cat((by_row, by_column), dim=-1).flatten(0, 1).repeat(1, 2)
        angles_nh = torch.cat((angles_nh.new_zeros(prefix_tokens, angles_nh.shape[1]), angles_nh))
        return Rotation(angles_nh.sin(), angles_nh.cos())

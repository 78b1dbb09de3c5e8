"""The position rules of `trainer.families` as matrix products, for graphs in which the token grid is not known beforehand.

A stored table [1, D, r, c] becomes A_y table A_x^T. The entries of the matrices are computed from the wanted grid inside the graph;
`trainer.onnx_export` puts them in place of torch's bicubic operators, whose scale ONNX would freeze at that of the traced grid.
Where the grid is the stored one, both matrices are the identity.

Shape legend: r x c the stored grid, gh x gw the wanted one, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.encoder import FrozenViT
from trainer.encoder_table import EncoderSpec
from trainer.families import resize_by_factor, resize_to_size


class ResizableViT(FrozenViT):
    """The same network; its positions follow the size of every image by matrices. ValueError for a family with a rule of its own."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__(spec)
        if spec.rules.resize not in (None, resize_by_factor, resize_to_size):
            raise ValueError(f"the position rule of {spec.rules.title} encoders cannot be exported")

    def position_for(self, gh: int, gw: int) -> Tensor:
        """As `FrozenViT.position_for`, to float32's rounding; gh and gw may be symbols of a trace."""
        rows, columns = self.spec.grid
        high, wide = _length(gh), _length(gw)
        if self.spec.rules.resize is resize_to_size:
            by_row, by_column = smoothed(gh, high, rows), smoothed(gw, wide, columns)
        else:
            # The rule is about the grid as a whole: a side that fits is resized all the same if the other one does not.
            fits = (high == rows) & (wide == columns)
            by_row = interpolated(gh, torch.where(fits, 1.0, (high + 0.1) / rows), rows)
            by_column = interpolated(gw, torch.where(fits, 1.0, (wide + 0.1) / columns), columns)
        table = self.pos_embed[:, 1:].unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
        resized = torch.matmul(torch.matmul(by_row, table), by_column.transpose(0, 1))
        return torch.cat((self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)), dim=1)


def interpolated(count: int, factor: Tensor, stored: int) -> Tensor:
    """[count, stored]: cubic convolution with a = -0.75 (Keys 1981) around (i + 0.5) / factor - 0.5; the border's values go on."""
    place = (torch.arange(count).float() + 0.5) / factor - 0.5
    first = place.floor()
    columns = torch.arange(stored).float()
    matrix = torch.zeros(1, stored)
    for tap in (-1.0, 0.0, 1.0, 2.0):
        weight = _cubic((place - first - tap).abs(), -0.75)
        source = (first + tap).clamp(0, stored - 1)
        matrix = matrix + weight[:, None] * (source[:, None] == columns).float()
    return matrix


def smoothed(count: int, length: Tensor, stored: int) -> Tensor:
    """[count, stored]: the cubic kernel with a = -0.5, stretched where the grid shrinks, each row's weights summing to one."""
    step = stored / length
    distance = (torch.arange(stored).float() + 0.5)[None] - (torch.arange(count).float() + 0.5)[:, None] * step
    weight = _cubic(distance.abs() / step.clamp(min=1.0), -0.5)
    return weight / weight.sum(dim=1, keepdim=True)


def _length(side: int) -> Tensor:
    """A side as a tensor. Counted, so that a trace keeps it a function of the image's size."""
    return torch.ones(side).sum()


def _cubic(x: Tensor, a: float) -> Tensor:
    """Keys' kernel of a distance x >= 0."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros(())))

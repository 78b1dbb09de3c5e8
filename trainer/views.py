"""Crops of frame and flow: a batch as it is stored in, two views of each sample out, ready for the networks and the losses.

Where the crops lie is a pure function of (seed, position in the run). Both views of one sample are cut out of everything that
the objective asked for with the same sampling grids: the frame, its flow (standardised before), the neighbour's frame, the
flow's confidence.

Shapes: b samples, h x w pixels of a view, S side of stored frames, s side of stored flow.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from trainer.images import normalise
from trainer.order import VIEWS, Ints, uniforms

STD_EPS = 1e-5  # in half image extents, as the flow is when it is standardised: about 0.001 px at 224


class Pixels(NamedTuple):
    """A batch on the device as it is stored; None for what the objective does not ask for.

    images_bhwc uint8 [b, S, S, 3], flow_b2hw int16 [b, 2, s, s] in units of quantum_px float32 [b], neighbours_bhwc uint8
    [b, S, S, 3], confidence_bhw uint8 [b, s, s]; with K > 1 neighbours of each sample flow, quantum and confidence are [b, K, ...].
    """

    images_bhwc: Tensor
    flow_b2hw: Tensor | None = None
    quantum_px: Tensor | None = None
    neighbours_bhwc: Tensor | None = None
    confidence_bhw: Tensor | None = None


class Views(NamedTuple):
    """Two crops per sample, all float32: normalised frames [b, 3, h, w], the standardised flow of each [b, 2, h, w], the
    neighbour's frame there [b, 3, h, w], the flow's confidence [b, 1, h, w] in 0..1; None for what was not asked for. With K > 1
    neighbours of each sample their flows lie one after the other, [b, 2 K, h, w], as do their confidences, [b, K, h, w]."""

    image1: Tensor
    image2: Tensor
    u1: Tensor | None = None
    u2: Tensor | None = None
    neighbour1: Tensor | None = None
    neighbour2: Tensor | None = None
    confidence1: Tensor | None = None
    confidence2: Tensor | None = None

    def rows(self, start: int, stop: int | None) -> Views:
        """Some of the samples."""
        return Views(*(None if tensor is None else tensor[start:stop] for tensor in self))  # type: ignore[arg-type]

    def parts(self, count: int) -> Iterator[Views]:
        """`count` equal parts, one after the other."""
        share = len(self.image1) // count
        for start in range(0, share * count, share):
            yield self.rows(start, start + share)


class Boxes(NamedTuple):
    """Crop boxes [m, 2 views]: scale (share of both axes), top and left corner in source pixels."""

    scale: NDArray[np.float64]
    top: Ints
    left: Ints


def draw_boxes(seed: int, positions: Ints, scale: tuple[float, float], source_size: int) -> Boxes:
    """Two independent crops per position: scale uniform on `scale`, then the corner uniform over all that fit."""
    draws = uniforms(seed, VIEWS, np.asarray(positions, np.int64), 6).reshape(-1, 2, 3)
    drawn = scale[0] + draws[..., 0] * (scale[1] - scale[0])
    free = source_size - np.floor(drawn * source_size).astype(np.int64)  # corners 0..free are inside
    top = np.floor(draws[..., 1] * (free + 1)).astype(np.int64)
    left = np.floor(draws[..., 2] * (free + 1)).astype(np.int64)
    return Boxes(drawn, top, left)


def crop_theta(scale_b: Tensor, top_b: Tensor, left_b: Tensor, source_hw: tuple[int, int]) -> Tensor:
    """Affine matrices [b, 2, 3] (output to input, the convention of `affine_grid`) of square-scale crops.

    `scale_b` is the crop's share of both axes, `top_b` / `left_b` the corner in whole source pixels. The matrix keeps
    the drawn scale itself although the box it centres on is floor(scale * size) wide: up to one pixel of zero padding
    can blend in at the border. That is how the published models were trained, so it stays.
    """
    height, width = source_hw
    scale_b = scale_b.double()
    box_h, box_w = torch.floor(scale_b * height), torch.floor(scale_b * width)
    theta = torch.zeros(len(scale_b), 2, 3, dtype=torch.float64, device=scale_b.device)
    theta[:, 0, 0] = theta[:, 1, 1] = scale_b
    theta[:, 0, 2] = (left_b + box_w / 2 - width / 2) / (width // 2)
    theta[:, 1, 2] = (top_b + box_h / 2 - height / 2) / (height // 2)
    return theta.float()


def sample_view(x_bchw: Tensor, theta_b23: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Cut the crop `theta_b23` out of each map: bilinear, zero padding, align_corners False, no antialiasing.

    Used with one theta on the frame and on its flow, whose resolution may differ: theta is in relative coordinates.
    Flow values are not rescaled by the crop.
    """
    return _sample(x_bchw, F.affine_grid(theta_b23, [len(x_bchw), 1, *size_hw], align_corners=False))


def _sample(x_bchw: Tensor, grid_bhw2: Tensor) -> Tensor:
    return F.grid_sample(x_bchw, grid_bhw2, mode="bilinear", padding_mode="zeros", align_corners=False)


def standardise_flow(flow_b2hw: Tensor, *, pixels: bool = True) -> Tensor:
    """Zero mean and unit (unbiased) deviation per image and channel over the whole map, before any crop is cut.

    With `pixels` the input is in pixels of its own resolution and is first put into half image extents (2 / width,
    2 / height), the units in which the epsilon of the division is meant.
    """
    if pixels:
        height, width = flow_b2hw.shape[-2:]
        flow_b2hw = flow_b2hw * _half_extents(2 / width, 2 / height, flow_b2hw.dtype, flow_b2hw.device)
    mean = flow_b2hw.mean(dim=(-2, -1), keepdim=True)
    std = flow_b2hw.std(dim=(-2, -1), keepdim=True)
    return (flow_b2hw - mean).div_(std + STD_EPS)


@lru_cache
def _half_extents(dx: float, dy: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[1, 2, 1, 1] on the device; made once, because sending it there makes the host wait for it."""
    with torch.inference_mode(False):
        return torch.tensor([dx, dy], dtype=dtype, device=device).view(1, 2, 1, 1)


def cut_views(pixels: Pixels, boxes: Boxes, *, view_size: int, source_size: int) -> Views:
    """Two views of each sample, cut with the same grids out of all that the batch holds.

    Frames are first brought to `source_size` (antialiased) where they are stored larger: views are sampled without
    antialiasing, so the source should be about twice their size. `boxes` are in pixels of that source.
    """
    thetas = [_theta(boxes, view, source_size, pixels.images_bhwc.device) for view in (0, 1)]
    grids = [F.affine_grid(t, [len(t), 1, view_size, view_size], align_corners=False) for t in thetas]

    def both(map_bchw: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        if map_bchw is None:
            return None, None
        first, second = (_sample(map_bchw, grid) for grid in grids)
        return first, second

    image1, image2 = both(_source(pixels.images_bhwc, source_size))
    assert image1 is not None and image2 is not None
    flow = neighbours = confidence = None
    if pixels.flow_b2hw is not None and pixels.quantum_px is not None:
        pairs_n2hw = pixels.flow_b2hw.reshape(-1, *pixels.flow_b2hw.shape[-3:])
        flow = standardise_flow(pairs_n2hw.float().mul_(pixels.quantum_px.reshape(-1, 1, 1, 1)))
        flow = flow.reshape(len(pixels.flow_b2hw), -1, *flow.shape[-2:])
    if pixels.neighbours_bhwc is not None:
        neighbours = _source(pixels.neighbours_bhwc, source_size)
    if pixels.confidence_bhw is not None:
        stored = pixels.confidence_bhw
        confidence = (stored if stored.ndim == 4 else stored[:, None]).float() / 255
    return Views(image1, image2, *both(flow), *both(neighbours), *both(confidence))


def _source(images_bhwc: Tensor, source_size: int) -> Tensor:
    """Stored frames, normalised, at the size that views are cut from."""
    frames = normalise(images_bhwc)
    if frames.shape[-1] != source_size:
        frames = F.interpolate(frames, size=(source_size, source_size), mode="bilinear", antialias=True)
    return frames


def _theta(boxes: Boxes, view: int, source_size: int, device: torch.device) -> Tensor:
    scale, top, left = (torch.from_numpy(np.ascontiguousarray(values[:, view])) for values in boxes)
    return crop_theta(scale, top, left, (source_size, source_size)).to(device, non_blocking=True)

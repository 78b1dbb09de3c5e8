"""Features of pictures as they come: PIL, numpy or torch, one or many, any size, on the model's device.

A picture becomes a normalised image whose sides the network takes (`prepare`, then resized or padded), the network's plain
call follows (or one per tile, see `trainer.tiling`), and
the dense map is brought back to the picture's own pixels. Where a picture needs no fitting, the result is
that of the plain call, bit for bit. `FlowFeat.extract` is this function.

Shape legend: B images, D encoder width, C feature channels, p patch side, H x W the picture's pixels, N points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from trainer.images import normalise, normalise_unit
from trainer.model import EncoderDecoder
from trainer.tiling import choose_tiles, tiled

if TYPE_CHECKING:
    from PIL.Image import Image

Picture: TypeAlias = "Image | NDArray[Any] | Tensor"
Points: TypeAlias = "NDArray[Any] | Tensor | Sequence[Sequence[float]]"
Fit: TypeAlias = Literal["resize", "pad"]


@dataclass(frozen=True)
class Frugality:
    """How memory is saved on large pictures; see `FlowFeat.extract`."""

    tile: int | None = None
    overlap: int | None = None
    memory: int | str | None = None


PLAIN = Frugality()


@dataclass(frozen=True)
class Extracted:
    """Features of one picture; of a batch, with an axis B before all others.

    high: [C, H, W], one vector per pixel of the picture. low: [D, rows, columns], the encoder's tokens: of the whole picture
    where it was resized, of the patches that touch it where it was padded. at_points: [N, C], where points were asked for.
    """

    low: Tensor
    high: Tensor
    at_points: Tensor | None = None


def extract(
    model: EncoderDecoder,
    pictures: Picture | Sequence[Picture],
    *,
    points: Points | None = None,
    fit: Fit = "resize",
    normalised: bool = False,
    frugality: Frugality = PLAIN,
) -> Extracted | list[Extracted]:
    """See `FlowFeat.extract`."""
    if fit not in ("resize", "pad"):
        raise ValueError(f'fit is "resize" or "pad", not {fit!r}')
    if isinstance(pictures, Sequence) and not isinstance(pictures, str):
        # One after another: sizes may differ, the memory is that of one, and no picture depends on what it came with.
        return [_extract(model, picture, points, fit, normalised, frugality) for picture in pictures]
    return _extract(model, pictures, points, fit, normalised, frugality)


@torch.no_grad()
def _extract(
    model: EncoderDecoder, picture: Picture, points: Points | None, fit: Fit, normalised: bool, frugality: Frugality
) -> Extracted:
    weight = next(model.parameters())
    images_bchw, is_batch = prepare(picture, weight.device, normalised=normalised)
    h, w = int(images_bchw.shape[-2]), int(images_bchw.shape[-1])
    xy_n2 = None if points is None else _checked_points(points, h, w, weight.device)
    fitted_bchw = _fitted(images_bchw.to(weight.dtype), model.size_multiple, fit)
    tiles = choose_tiles(
        model,
        (len(fitted_bchw), int(fitted_bchw.shape[-2]), int(fitted_bchw.shape[-1])),
        tile=frugality.tile,
        overlap=frugality.overlap,
        memory=frugality.memory,
        resized=fit == "resize" and fitted_bchw.shape[-2:] != (h, w),
    )
    low, high = model(fitted_bchw) if tiles is None else tiled(model, fitted_bchw, tiles)
    if fit == "pad":
        patch = model.patch_size
        low, high = low[..., : -(-h // patch), : -(-w // patch)], high[..., :h, :w]
    elif high.shape[-2:] != (h, w):
        high = F.interpolate(high, size=(h, w), mode="bilinear", align_corners=False)
    at_points = None if xy_n2 is None else sample(high, xy_n2)
    if is_batch:
        return Extracted(low, high, at_points)
    return Extracted(low[0], high[0], None if at_points is None else at_points[0])


def prepare(picture: Picture, device: torch.device, *, normalised: bool = False) -> tuple[Tensor, bool]:
    """A picture or a batch -> ([B, 3, H, W] ImageNet-normalised float on `device`, whether it came as a batch)."""
    array, channels_last = (picture, False) if isinstance(picture, Tensor) else (_as_tensor(picture), True)
    if array.ndim not in (3, 4) or not array.numel():
        raise ValueError(f"a picture is [H, W, 3] or [3, H, W], a batch has one more axis, not {list(array.shape)}")
    images = (array if array.ndim == 4 else array[None]).to(device)
    axes = [axis for axis in ((-1, 1) if channels_last else (1, -1)) if images.shape[axis] == 3]
    if not axes:
        raise ValueError(f"a picture has 3 color channels, first or last, but this one is {list(array.shape)}")
    images_bhwc = images if axes[0] == -1 else images.permute(0, 2, 3, 1)
    if images.dtype == torch.uint8:
        if normalised:
            raise ValueError("normalised=True is for floats, but the picture is uint8")
        return normalise(images_bhwc), array.ndim == 4
    if not images.is_floating_point():
        raise ValueError(f"a picture is uint8 or floating point, not {images.dtype}")
    images_bchw = images_bhwc.permute(0, 3, 1, 2)
    if normalised:
        return images_bchw.contiguous(), array.ndim == 4
    low, high = images_bchw.aminmax()
    if not (low >= 0 and high <= 1):  # said this way round, NaN is caught too
        raise ValueError(
            f"a picture of floats has values from 0 to 1, but this one {float(low):.3g} to {float(high):.3g}: "
            "divide by 255, or pass normalised=True if ImageNet's mean and deviation are already taken out"
        )
    return normalise_unit(images_bchw), array.ndim == 4


def sample(maps_bchw: Tensor, xy_n2: Tensor) -> Tensor:
    """[B, C, H, W] at points (x, y) -> [B, N, C]: bilinear between pixel centres, which are at whole numbers; edges continue."""
    h, w = maps_bchw.shape[-2:]
    x, y = xy_n2[:, 0].clamp(0, w - 1), xy_n2[:, 1].clamp(0, h - 1)
    x0, y0 = x.floor().long(), y.floor().long()
    x1, y1 = (x0 + 1).clamp(max=w - 1), (y0 + 1).clamp(max=h - 1)
    right, below = (x - x0).to(maps_bchw.dtype), (y - y0).to(maps_bchw.dtype)
    # Written out, because grid_sample's rounding of coordinates misses whole pixels by a little.
    upper = maps_bchw[..., y0, x0] * (1 - right) + maps_bchw[..., y0, x1] * right
    lower = maps_bchw[..., y1, x0] * (1 - right) + maps_bchw[..., y1, x1] * right
    return (upper * (1 - below) + lower * below).transpose(-1, -2)


def _fitted(images_bchw: Tensor, multiple: int, fit: Fit) -> Tensor:
    """Sides become multiples: the nearest ones by resizing, the next ones by repeating the last row and column."""
    h, w = images_bchw.shape[-2:]
    if h % multiple == 0 and w % multiple == 0:
        return images_bchw
    if fit == "pad":
        return F.pad(images_bchw, (0, -w % multiple, 0, -h % multiple), mode="replicate")
    size = [max(multiple, (side + multiple // 2) // multiple * multiple) for side in (h, w)]
    return F.interpolate(images_bchw, size=size, mode="bilinear", align_corners=False, antialias=True)


def _checked_points(points: Points, h: int, w: int, device: torch.device) -> Tensor:
    xy_n2 = torch.as_tensor(points).cpu().double()
    if xy_n2.ndim != 2 or xy_n2.shape[1] != 2:
        raise ValueError(f"points are [N, 2], x and y each, not {list(xy_n2.shape)}")
    limit = torch.tensor([w, h], dtype=torch.float64) - 0.5
    outside = ~((xy_n2 >= -0.5) & (xy_n2 <= limit)).all(dim=1)
    if outside.any():
        first = xy_n2[outside][0].tolist()
        raise ValueError(
            f"{int(outside.sum())} points are outside the picture of {w}x{h} (width x height); first: {first}"
        )
    return xy_n2.float().to(device)


def _as_tensor(picture: Any) -> Tensor:
    """A numpy array or a PIL image as a tensor; PIL is only asked for where there is no array, so that it stays optional."""
    if isinstance(picture, np.ndarray):
        return torch.from_numpy(np.require(picture, requirements=["C", "W"]))
    from PIL import Image, ImageOps

    if not isinstance(picture, Image.Image):
        raise ValueError(f"a picture is a PIL image, a numpy array or a torch tensor, not {type(picture).__name__}")
    if picture.mode[0] in "IF":
        raise ValueError(f"a PIL image of mode {picture.mode} has no agreed range: convert it to RGB first")
    return torch.from_numpy(np.array(ImageOps.exif_transpose(picture).convert("RGB")))

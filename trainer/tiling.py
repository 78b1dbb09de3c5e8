"""A large image in tiles: windows that overlap, each through the plain call, blended into two maps; and the memory that takes.

A fitted batch comes in from `trainer.extract_features`. Every tile is an image of its own to the network (its positions, its
attention), so the result is not that of the plain call; where one tile covers the image, it is. Weights of the blend fall
linearly over an overlap and add up to one everywhere, so that a pixel under one tile alone is that tile's, bit for bit.

Shape legend: B images, D encoder width, C feature channels, p patch side, H x W the image, h x w a tile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.model import EncoderDecoder

SMALLEST_TILE = 4
"""The smallest tile that memory is looked for with, in units of `size_multiple`."""
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Tiles:
    """How an image is cut: side of the square tiles and of their overlap in pixels, both multiples of the model's `size_multiple`."""

    side_px: int
    overlap_px: int


def choose_tiles(
    model: EncoderDecoder,
    shape: tuple[int, int, int],
    *,
    tile: int | None,
    overlap: int | None,
    memory: int | str | None,
    resized: bool,
) -> Tiles | None:
    """The tiles for images of shape (B, H, W) after fitting, or None where the plain call will do.

    tile: side in pixels. overlap: at least; a quarter of the tile if not said. memory: bytes, or a text such as "4GiB", that
    `extraction_bytes` may not exceed; without `tile` the largest tile within it is taken. resized: see `extraction_bytes`.
    Raises ValueError for a tile that the model does not take, and, saying how much is needed, where `memory` does not suffice.
    """
    step, longest = model.size_multiple, max(shape[1:])
    check_tile(model, tile)
    if overlap is not None and overlap < 0:
        raise ValueError(f"overlap = {overlap} must not be negative")
    bound = None if memory is None else parse_bytes(memory)
    if tile is not None:
        chosen = _tiles(tile, overlap, step)
        needed = extraction_bytes(model, shape, chosen, resized=resized)
        if bound is not None and needed > bound:
            raise ValueError(f"tile = {tile} takes {_shown(needed)}, but memory = {memory}: use a smaller tile")
        return chosen if tile < longest else None
    if bound is None or extraction_bytes(model, shape, None, resized=resized) <= bound:
        return None
    smallest = SMALLEST_TILE * step
    for side in range((longest - 1) // step * step, smallest - 1, -step):
        chosen = _tiles(side, overlap, step)
        if extraction_bytes(model, shape, chosen, resized=resized) <= bound:
            return chosen
    needed = extraction_bytes(model, shape, _tiles(smallest, overlap, step), resized=resized)
    raise ValueError(
        f"features of {shape[1]}x{shape[2]} pixels (height x width) take at least {_shown(needed)} in tiles of {smallest}, "
        f"but memory = {memory}: allow more, or make the picture smaller"
    )


def check_tile(model: EncoderDecoder, tile: int | None) -> None:
    """Raises ValueError, naming the nearest ones, for a side that the model does not take."""
    step = model.size_multiple
    if tile is not None and (tile < step or tile % step):
        near = " or ".join(str(side) for side in (tile // step * step, tile // step * step + step) if side > 0)
        raise ValueError(f"tile = {tile} must be a multiple of {step} (twice {model.variant}'s patch), such as {near}")


def _tiles(side: int, overlap: int | None, step: int) -> Tiles:
    wanted = side // 4 if overlap is None else overlap
    return Tiles(side, min(-(-wanted // step) * step, side - step))


def extraction_bytes(
    model: EncoderDecoder, shape: tuple[int, int, int], tiles: Tiles | None, *, resized: bool = False
) -> int:
    """Bytes that tensors take at most at once while features of images (B, H, W) are made, weights and pictures not counted.

    The two results, (C + D/p^2) HW, and the call on one tile. The plain call is one tile whose results are already among what it
    holds. resized: the dense map is brought back to another size in the end, which needs it twice.
    """
    b, h, w = shape
    size = next(model.parameters()).element_size()
    result = b * h * w * (model.feature_dim + model.encoder_dim / model.patch_size**2) * size
    doubled = b * h * w * model.feature_dim * size if resized else 0
    if tiles is None or (tiles.side_px >= h and tiles.side_px >= w):
        return int(max(call_bytes(model, (b, h, w)), result + doubled))
    tile = (b, min(h, tiles.side_px), min(w, tiles.side_px))
    return int(result + max(call_bytes(model, tile), doubled))


def call_bytes(model: EncoderDecoder, shape: tuple[int, int, int]) -> int:
    """Bytes that tensors of one plain call on (B, H, W) take at most at once, weights not counted.

    Per pixel, in numbers: the encoder's largest moment is a block's MLP beside the four maps, 15 D/p^2. The decoder's is its
    head: the dense map, the convolution's result and the next one, 3 C, with the norm's two statistics, beside the finest path
    and levels, at (8/p)^2 and (4/p)^2 of the pixels, and the encoder's maps; or the finest level itself, (4/p)^2 of its width,
    where C is small.
    """
    b, h, w = shape
    c, d, patch_area = model.feature_dim, model.encoder_dim, model.patch_size**2
    head = 3 * c + 2 + (64 + 2 * 16) * c / patch_area + 5 * d / patch_area
    finest = (2 * 16 * max(model.spec.widths[0], c) + 3 * 16 * c + 64 * c + 5 * d) / patch_area
    encoder = 15 * d / patch_area
    return int(b * h * w * max(head, finest, encoder) * next(model.parameters()).element_size())


@torch.no_grad()
def tiled(model: EncoderDecoder, images_bchw: Tensor, tiles: Tiles) -> tuple[Tensor, Tensor]:
    """As the plain call: [B, 3, H, W] -> (low [B, D, H/p, W/p], high [B, C, H, W]), tile by tile."""
    model.check_images(images_bchw)
    b, _, h, w = images_bchw.shape
    patch = model.patch_size
    low = images_bchw.new_zeros(b, model.encoder_dim, h // patch, w // patch)
    high = images_bchw.new_zeros(b, model.feature_dim, h, w)
    for y, x in _starts_2d(h, w, tiles):
        below, right = min(h, y + tiles.side_px), min(w, x + tiles.side_px)
        one_low, one_high = model(images_bchw[..., y:below, x:right])
        for whole, one, pixels in ((high, one_high, 1), (low, one_low, patch)):
            by_row = _weights(h, y, tiles, pixels).to(one)
            by_column = _weights(w, x, tiles, pixels).to(one)
            one.mul_(by_row[:, None]).mul_(by_column)
            whole[..., y // pixels : below // pixels, x // pixels : right // pixels].add_(one)
        del one, one_low, one_high  # before the next call, whose memory is counted without them
    return low, high


def starts(length: int, tiles: Tiles) -> list[int]:
    """Where tiles begin along a side of `length` pixels; the last one ends with it, so it may overlap more than the others."""
    last = max(0, length - tiles.side_px)
    return [*range(0, last, tiles.side_px - tiles.overlap_px), last]


def _starts_2d(h: int, w: int, tiles: Tiles) -> Iterator[tuple[int, int]]:
    return ((y, x) for y in starts(h, tiles) for x in starts(w, tiles))


def _weights(length: int, start: int, tiles: Tiles, pixels: int) -> Tensor:
    """Share of the tile at `start` in every unit of `pixels` pixels that it covers along one side of the image."""
    total = torch.zeros(length // pixels, dtype=torch.float64)
    own = torch.ones(0, dtype=torch.float64)
    for first in starts(length, tiles):
        end = min(length, first + tiles.side_px)
        place = torch.arange(first, end, pixels, dtype=torch.float64) + pixels / 2
        ramp = torch.ones(len(place), dtype=torch.float64)
        if tiles.overlap_px and first > 0:
            ramp = torch.minimum(ramp, (place - first) / tiles.overlap_px)
        if tiles.overlap_px and end < length:
            ramp = torch.minimum(ramp, (end - place) / tiles.overlap_px)
        total[first // pixels : end // pixels] += ramp
        own = ramp if first == start else own
    return own / total[start // pixels : start // pixels + len(own)]


def parse_bytes(memory: int | str) -> int:
    """A number of bytes from a number or a text such as "500MB" or "4GiB". Raises ValueError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(memory))
    unit = _UNITS.get(match.group(2).upper()) if match else None
    if match is None or unit is None or not float(match.group(1)) > 0:
        raise ValueError(f'memory = {memory!r} is no amount: give bytes, or a text such as "500MB" or "4GiB"')
    return int(float(match.group(1)) * unit)


def _shown(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"

"""What every frozen encoder is: normalised images in, patch tokens as maps out.

`trainer.encoder.FrozenViT` is one; a module of somebody else's becomes one inside `trainer.outside_encoder.OutsideEncoder`, which
holds it to what is said here. `trainer.model` puts the decoder on it.

Shape legend: B images, D the encoder's width, p patch side, H x W pixels.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

Triple = tuple[float, float, float]


class Encoded(NamedTuple):
    """low_bdhw: final-normed patch tokens [B, D, H/p, W/p]. maps_bdhw: four maps of that shape, shallow layer first, as the decoder
    takes them (of our ViTs: raw outputs of the four hooked blocks, without prefix tokens)."""

    low_bdhw: Tensor
    maps_bdhw: tuple[Tensor, ...]


class FrozenEncoder(Protocol):
    """patch: p, pixels per side of a token. width: D. mean, std: of the images that it takes, per channel of RGB from 0 to 1."""

    patch: int
    width: int
    mean: Triple
    std: Triple

    def __call__(self, images_bchw: Tensor) -> Encoded:
        """images_bchw: [B, 3, H, W] float, minus `mean`, over `std`; H and W are multiples of 2p, otherwise anything.

        A plain tuple (low, (map1, map2, map3, map4)) will do.
        """
        ...

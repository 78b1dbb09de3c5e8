"""Feature sources that a probe compares: the encoder alone, with an untrained decoder, and with the trained one.

A source turns a batch of normalised pictures into `Features`: the encoder's token grid and, where there is a decoder, a
map at every pixel. All sources of one run stand on the *same* frozen encoder, so that a difference between two rows of a
table is the decoder's doing; the encoder runs once per batch for all of them.

Shape legend: b pictures, d encoder channels, k decoder channels, (g, f) token grid, (h, w) pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from trainer import Encoded, FlowFeat


@dataclass(frozen=True)
class Features:
    """low_bdgf: [B, D, H/p, W/p] float32, the encoder's tokens. high_bkhw: [B, K, H, W] float32, or None without a decoder."""

    low_bdgf: Tensor
    high_bkhw: Tensor | None = None

    def picture(self, index: int) -> Features:
        """The features of one picture, with its batch axis kept."""
        high = None if self.high_bkhw is None else self.high_bkhw[index : index + 1]
        return Features(self.low_bdgf[index : index + 1], high)


class FeatureSource(Protocol):
    """What a probe sees of a network."""

    name: str

    def __call__(self, images_bchw: Tensor) -> Features:
        """images_bchw: [B, 3, H, W] float32, ImageNet-normalised, H and W multiples of twice the patch."""
        ...


class SharedEncoder:
    """Runs a FlowFeat's frozen encoder, and remembers the last batch so that several decoders can follow one pass."""

    def __init__(self, model: FlowFeat) -> None:
        self.model = model
        self._seen: tuple[Tensor, int] | None = None
        self._encoded: Encoded | None = None

    def __call__(self, images_bchw: Tensor) -> Encoded:
        # Identity and version, not content: comparing pictures would cost as much as it saves on small ones.
        known = self._seen is not None and self._seen[0] is images_bchw and self._seen[1] == images_bchw._version
        if self._encoded is None or not known:
            self.forget()
            self._encoded = self.model.encode(images_bchw)
            self._seen = (images_bchw, images_bchw._version)
        return self._encoded

    def forget(self) -> None:
        """Free the last batch."""
        self._seen, self._encoded = None, None


class EncoderSource:
    """The frozen encoder alone: y_enc at the token grid."""

    name = "encoder"

    def __init__(self, encoder: SharedEncoder) -> None:
        self.encoder = encoder

    @torch.no_grad()
    def __call__(self, images_bchw: Tensor) -> Features:
        return Features(self.encoder(images_bchw).low_bdhw)


class DecoderSource:
    """The encoder with a decoder on top: y_enc at the token grid and y_dec at every pixel."""

    def __init__(self, name: str, encoder: SharedEncoder, model: FlowFeat) -> None:
        self.name = name
        self.encoder = encoder
        self.model = model

    @torch.no_grad()
    def __call__(self, images_bchw: Tensor) -> Features:
        encoded = self.encoder(images_bchw)
        height, width = images_bchw.shape[-2:]
        return Features(encoded.low_bdhw, self.model.decode(encoded.maps_bdhw, (height, width)))


def with_fresh_decoder(model: FlowFeat, seed: int) -> FlowFeat:
    """The same encoder (shared, not copied) under a decoder of the same shape with newly drawn weights.

    Weights are drawn on the CPU, so that `seed` means the same decoder on every device, by the decoder's own initialisation,
    as a training run's are at step 0. The global generator is left as it was.
    """
    fresh = copy.deepcopy(model, memo={id(model.encoder): model.encoder})
    device = next(model.decoder.parameters()).device
    fresh.decoder.cpu().initialise(torch.Generator().manual_seed(seed))
    fresh.decoder.to(device)
    return fresh


def _encoder(shared: SharedEncoder, seed: int) -> FeatureSource:
    return EncoderSource(shared)


def _random_decoder(shared: SharedEncoder, seed: int) -> FeatureSource:
    return DecoderSource("random_decoder", shared, with_fresh_decoder(shared.model, seed))


def _flowfeat(shared: SharedEncoder, seed: int) -> FeatureSource:
    return DecoderSource("flowfeat", shared, shared.model)


SOURCES: dict[str, Callable[[SharedEncoder, int], FeatureSource]] = {
    "encoder": _encoder,
    "random_decoder": _random_decoder,
    "flowfeat": _flowfeat,
}
"""Every feature source by name, in the order tables show them."""

TITLES = {"encoder": "encoder alone", "random_decoder": "encoder + random decoder", "flowfeat": "encoder + FlowFeat"}


def check_names(names: Sequence[str]) -> list[str]:
    """`names` without repeats, in table order. Raises ValueError naming the nearest source for an unknown one."""
    for name in names:
        if name not in SOURCES:
            near = get_close_matches(name, SOURCES, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"unknown feature source {name!r}{hint} (known: {', '.join(SOURCES)})")
    if not names:
        raise ValueError(f"no feature source chosen (known: {', '.join(SOURCES)})")
    return [name for name in SOURCES if name in names]


def create_sources(names: Sequence[str], model: FlowFeat, *, seed: int) -> list[FeatureSource]:
    """The named sources, all over the encoder of `model`, in table order; `seed` draws the random decoder."""
    model.eval()
    shared = SharedEncoder(model)
    return [SOURCES[name](shared, seed) for name in check_names(names)]

"""What a probe sees of a network: pictures in, features out, with the encoder run once for all sources that stand on it.

A source is an encoder and what is made of its output: `encode` is shared, `decode` is the source's own. Probes hand a batch
of uint8 pictures to `features_of` and get the features of one source after the other, so that only one full-resolution map
need be held at a time. Features of a source with a cache (`feature_cache.py`) are made once. Which sources there are says
`table.py`.

Shape legend: b pictures, d encoder channels, k decoder channels, (g, f) token grid, (h, w) pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class Features:
    """low_bdgf: [B, D, g, f] float32, the encoder's tokens. high_bkhw: [B, K, H, W] float32, or None without a decoder.

    dense_alone: the dense map is made of the tokens alone (resized or upsampled), so heads on dense features take it without
    the tokens beside it, as the papers of upsamplers do.
    """

    low_bdgf: Tensor
    high_bkhw: Tensor | None = None
    dense_alone: bool = False

    def picture(self, index: int) -> Features:
        """The features of one picture, with its batch axis kept."""
        high = None if self.high_bkhw is None else self.high_bkhw[index : index + 1]
        return replace(self, low_bdgf=self.low_bdgf[index : index + 1], high_bkhw=high)

    def for_heads(self) -> Features:
        """What a head is fitted on: a dense map that stands alone takes the tokens' place, on a grid of single pixels."""
        return Features(self.high_bkhw) if self.dense_alone and self.high_bkhw is not None else self

    def require_finite(self) -> None:
        """Raises ValueError where a feature is NaN or infinite."""
        for one in (self.low_bdgf, self.high_bkhw):
            if one is not None and not bool(one.isfinite().all()):
                raise ValueError("the network's features are not finite (NaN or infinity): is the checkpoint intact?")


@dataclass(frozen=True)
class Encoding:
    """What an encoder makes of a batch, for whatever decodes it.

    images_bchw: the pictures as the encoder took them, normalised. low_bdgf: its tokens. hooked_bdgf: maps of inner blocks,
    for decoders that take them, or the dense map of a network that gives one itself.
    """

    images_bchw: Tensor
    low_bdgf: Tensor
    hooked_bdgf: tuple[Tensor, ...] = ()

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.images_bchw.shape[-2], self.images_bchw.shape[-1]


class Encoder(Protocol):
    """The frozen part that sources share. size_multiple: what the height and width of a picture must be multiples of."""

    @property
    def size_multiple(self) -> int: ...

    def encode(self, images_bhwc: Tensor) -> Encoding:
        """images_bhwc: uint8 [B, H, W, 3] RGB on the encoder's device; normalisation is the encoder's business."""
        ...


Refine = Callable[[Tensor, Features], Tensor]
"""Logits [b, c, ., .] of a probe and the features they were made of → class probabilities [b, c, h, w]."""


class FeatureStore(Protocol):
    """Where features are kept between runs (`feature_cache.py`)."""

    def load(self, images_bhwc: Tensor) -> Features | None:
        """The features of these very pictures, or None unless all are there."""
        ...

    def keep(self, images_bhwc: Tensor, features: Features) -> None: ...


@dataclass(frozen=True, eq=False)
class Source:
    """One row of a table: an encoder and what is made of its output.

    modules: the networks it is made of, the encoder's first. spec: how networks of others are called, as text; empty where
    there are none. refine: what is
    done to the logits of a probe, or None. store: where its features are kept, or None. trained_on: digest of the shard set
    that it was trained on, where that is known.
    """

    name: str
    encoder: Encoder
    decode: Callable[[Encoding], Features]
    modules: tuple[nn.Module, ...] = ()
    spec: str = ""
    refine: Refine | None = None
    store: FeatureStore | None = None
    trained_on: str | None = None

    @property
    def foreign(self) -> bool:
        """Whether networks of others are in it."""
        return bool(self.spec)


def by_encoder(sources: Sequence[Source]) -> list[list[Source]]:
    """Sources of one encoder together, in the order they came in."""
    groups: dict[int, list[Source]] = {}
    for source in sources:
        groups.setdefault(id(source.encoder), []).append(source)
    return list(groups.values())


def features_of(sources: Sequence[Source], images_bhwc: Tensor) -> Iterator[tuple[Source, Features]]:
    """The features of a batch, source by source: every encoder runs once at most, a decoder when its turn comes."""
    for group in by_encoder(sources):
        encoding: Encoding | None = None
        for source in group:
            kept = None if source.store is None else source.store.load(images_bhwc)
            if kept is None:
                encoding = encoding or source.encoder.encode(images_bhwc)
                kept = source.decode(encoding)
                if source.store is not None:
                    source.store.keep(images_bhwc, kept)
            yield source, kept

"""What a probe sees of a network: pictures in, features out, with the encoder run once for all sources that stand on it.

A source is an encoder and what is made of its output: `encode` is shared, `decode` is the source's own. Probes hand a batch
of uint8 pictures to `features_of` and get the features of one source after the other, so that only one full-resolution map
need be held at a time. Which sources there are says `table.py`.

Shape legend: b pictures, d encoder channels, k decoder channels, (g, f) token grid, (h, w) pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Features:
    """low_bdgf: [B, D, g, f] float32, the encoder's tokens. high_bkhw: [B, K, H, W] float32, or None without a decoder."""

    low_bdgf: Tensor
    high_bkhw: Tensor | None = None

    def picture(self, index: int) -> Features:
        """The features of one picture, with its batch axis kept."""
        high = None if self.high_bkhw is None else self.high_bkhw[index : index + 1]
        return Features(self.low_bdgf[index : index + 1], high)

    def require_finite(self) -> None:
        """Raises ValueError where a feature is NaN or infinite."""
        for one in (self.low_bdgf, self.high_bkhw):
            if one is not None and not bool(one.isfinite().all()):
                raise ValueError("the network's features are not finite (NaN or infinity): is the checkpoint intact?")


@dataclass(frozen=True)
class Encoding:
    """What an encoder makes of a batch, for whatever decodes it.

    images_bchw: the pictures as the encoder took them, normalised. low_bdgf: its tokens. hooked_bdgf: maps of inner blocks,
    for decoders that take them.
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


@dataclass(frozen=True, eq=False)
class Source:
    """One row of a table: an encoder and what is made of its output."""

    name: str
    encoder: Encoder
    decode: Callable[[Encoding], Features]


def by_encoder(sources: Sequence[Source]) -> list[list[Source]]:
    """Sources of one encoder together, in the order they came in."""
    groups: dict[int, list[Source]] = {}
    for source in sources:
        groups.setdefault(id(source.encoder), []).append(source)
    return list(groups.values())


def features_of(sources: Sequence[Source], images_bhwc: Tensor) -> Iterator[tuple[Source, Features]]:
    """The features of a batch, source by source: every encoder runs once, a decoder when its turn comes."""
    for group in by_encoder(sources):
        encoding = group[0].encoder.encode(images_bhwc)
        for source in group:
            yield source, source.decode(encoding)

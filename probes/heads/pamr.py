"""Refinement by pixel affinities: class probabilities diffused among pixels that look alike. FlowFeat++ is one setting of it.

Probabilities (or any map) and a guide come in, the refined map at the guide's size goes out. Pixel-adaptive mask refinement
(PAMR, Araslanov and Roth, CVPR 2020, section 4): for every pixel p with neighbours q at given offsets, borders replicated,

    l(p, q) = -mean over channels of |x(p) - x(q)| / (1e-8 + scale * std(p))       the guide's affinity
    a(p, q) = softmax over q of l(p, q)
    m(p)    <- sum_q a(p, q) m(q)                                                  `iterations` times

std(p) is the unbiased deviation of the channel over all samples around p. FlowFeat++ (NeurIPS 2025, section 3.4) takes the
decoder's features as the guide, one 11 x 11 window without its centre, and a fixed 0.1 in place of scale * std(p).

Memory: the affinities, n * h * w * 4 bytes (192 MB for 120 neighbours at 480 x 832) and as much again while their softmax is
taken, which is why pictures go one by one; a copy of the guide with its border; the differences that affinities are made of
are taken in bands of rows of at most `BAND_BYTES`. At that size, with 128 channels: 3.4 s of one core and 0.5 s for 10 steps.

Shape legend: b pictures, c classes, k channels of the guide, n neighbours, (h, w) pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BAND_BYTES = 2 * 2**20
"""Size of the temporaries besides the affinities: a band of rows of the guide's difference to one neighbour, or of the new map.

It's what a core's cache holds: with 32 MB, the affinities of 128 channels took ten times as long.
"""

Offset = tuple[int, int]
"""Rows down and columns to the right."""


def window_offsets(size: int, *, centre: bool = False) -> tuple[Offset, ...]:
    """Offsets of a square window of odd `size`: size^2 - 1 neighbours, one more with the centre."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a window has an odd size, not {size}")
    reach = range(-(size // 2), size // 2 + 1)
    return tuple((y, x) for y in reach for x in reach if centre or (y, x) != (0, 0))


def ring_offsets(dilations: Sequence[int]) -> tuple[Offset, ...]:
    """Offsets of 3 x 3 rings, one for each dilation: 8 neighbours each."""
    return tuple((y * d, x * d) for d in dilations for y, x in window_offsets(3))


@dataclass(frozen=True)
class Refinement:
    """What decides a refinement besides the guide.

    `local_deviation` divides by 1e-8 + scale * std(p), else by `scale` alone; `centre_samples` says how many times the pixel
    itself counts among the samples of std(p) (upstream: once for each dilation).
    """

    offsets: tuple[Offset, ...]
    iterations: int
    scale: float = 0.1
    local_deviation: bool = False
    centre_samples: int = 0

    @staticmethod
    def pamr(dilations: Sequence[int] = (1,), iterations: int = 1) -> Refinement:
        """PAMR as published; its paper uses dilations 1, 2, 4, 8, 12, 24 and 10 iterations."""
        return Refinement(ring_offsets(dilations), iterations, local_deviation=True, centre_samples=len(dilations))


FLOWFEAT_PLUS_PLUS = Refinement(window_offsets(11), iterations=10)
"""One reading of the paper's text: it leaves open whether the window has its centre, and what 0.1 multiplies."""


class _Shifted:
    """A map with its border replicated, read at an offset without a copy."""

    def __init__(self, map_bkhw: Tensor, offsets: Sequence[Offset]) -> None:
        self.down = max(abs(y) for y, _ in offsets)
        self.right = max(abs(x) for _, x in offsets)
        self.height, self.width = map_bkhw.shape[-2:]
        self.padded = F.pad(map_bkhw, (self.right, self.right, self.down, self.down), mode="replicate")

    def at(self, offset: Offset, rows: slice) -> Tensor:
        """View [b, k, rows, w] of the values at p + offset."""
        top, left = self.down + offset[0], self.right + offset[1]
        return self.padded[:, :, rows.start + top : rows.stop + top, left : left + self.width]


def _bands(height: int, bytes_per_row: int) -> Iterator[slice]:
    """Rows 0 to `height` in bands of at most BAND_BYTES, or of one row."""
    band = max(BAND_BYTES // bytes_per_row, 1)
    for top in range(0, height, band):
        yield slice(top, min(top + band, height))


def _divisor(guide: _Shifted, here: Tensor, rows: slice, settings: Refinement) -> Tensor:
    """1e-8 + scale * std(p) [b, k, rows, w], std over the samples around each pixel, from their differences to the pixel itself.

    Differences keep the digits that a sum of squares would lose where the guide hardly varies.
    """
    total, squares = torch.zeros_like(here), torch.zeros_like(here)
    for offset in settings.offsets:
        difference = guide.at(offset, rows) - here
        total += difference
        squares += difference.square_()
    samples = len(settings.offsets) + settings.centre_samples
    variance = squares.sub_(total.square_() / samples) / (samples - 1)
    return variance.clamp_(min=0).sqrt_().mul_(settings.scale).add_(1e-8)


def affinities(guide_bkhw: Tensor, settings: Refinement) -> Tensor:
    """a [b, n, h, w]: the share of every neighbour, summing to 1 over n."""
    b, k, h, w = guide_bkhw.shape
    guide = _Shifted(guide_bkhw, settings.offsets)
    logits_bnhw = guide_bkhw.new_empty(b, len(settings.offsets), h, w)
    for rows in _bands(h, b * k * w * guide_bkhw.element_size()):
        here = guide.at((0, 0), rows)
        difference = torch.empty_like(here)
        divisor = _divisor(guide, here, rows, settings) if settings.local_deviation else None
        for n, offset in enumerate(settings.offsets):
            torch.sub(guide.at(offset, rows), here, out=difference).abs_()
            if divisor is not None:
                difference.div_(divisor)
            logits_bnhw[:, n, rows] = difference.mean(dim=1).neg_()
    if not settings.local_deviation:
        logits_bnhw.div_(settings.scale)
    return logits_bnhw.softmax(dim=1)


def diffuse(map_bchw: Tensor, affinities_bnhw: Tensor, offsets: Sequence[Offset], iterations: int) -> Tensor:
    """The map after `iterations` steps of m(p) <- sum_q a(p, q) m(q), with given affinities."""
    assert affinities_bnhw.shape[1] == len(offsets), (affinities_bnhw.shape, len(offsets))
    b, c, h, w = map_bchw.shape
    for _ in range(iterations):
        shifted = _Shifted(map_bchw, offsets)
        map_bchw = torch.zeros_like(map_bchw)
        for rows in _bands(h, b * c * w * map_bchw.element_size()):
            new = map_bchw[:, :, rows]
            for n, offset in enumerate(offsets):
                new.addcmul_(affinities_bnhw[:, n : n + 1, rows], shifted.at(offset, rows))
    return map_bchw


@torch.no_grad()
def refine(map_bchw: Tensor, guide_bkhw: Tensor, settings: Refinement) -> Tensor:
    """The map [b, c, h, w] at the guide's size, refined; a smaller one is resized first (bilinear, align_corners True)."""
    assert len(map_bchw) == len(guide_bkhw), (map_bchw.shape, guide_bkhw.shape)
    size = (guide_bkhw.shape[-2], guide_bkhw.shape[-1])
    if map_bchw.shape[-2:] != size:
        map_bchw = F.interpolate(map_bchw, size=size, mode="bilinear", align_corners=True)
    refined = []
    for one, guide in zip(map_bchw.split(1), guide_bkhw.split(1), strict=True):
        refined.append(diffuse(one, affinities(guide, settings), settings.offsets, settings.iterations))
    return torch.cat(refined)


def flowfeat_plus_plus(logits_bchw: Tensor, decoder_bkhw: Tensor, settings: Refinement = FLOWFEAT_PLUS_PLUS) -> Tensor:
    """Class probabilities [b, c, h, w] of any probe's logits, refined by FlowFeat's features; their argmax is the prediction."""
    return refine(logits_bchw.softmax(dim=1), decoder_bkhw, settings)

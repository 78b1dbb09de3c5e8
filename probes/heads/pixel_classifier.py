"""Classifiers of pixels that are trained over a whole data set, one per feature source, on frozen features.

Features of a few pictures and their labels come in batch by batch; heads that give logits leave. There are two heads:

    linear       W_low y_enc, resized bilinearly to the decoder's map, + W_high y_dec + b; without a decoder at the token grid.
                 (Resizing and a linear layer commute: this is a linear layer on the resized and concatenated features.)
    attention    `heads/attention.py`, for sources with a decoder

The loss is the cross-entropy of the logits, resized bilinearly to the labels, averaged over the labelled pixels of the batch.
A batch may come in parts: their gradients add up to those of the batch, so that memory is that of a part.

Memory, for p pictures of a part at s x s pixels: 4 copies of the logits, p * c * s^2 * 16 bytes (0.2 GB for 8 pictures, 27
classes and 256 px), besides the features.

Shape legend: b pictures, d encoder channels, k decoder channels, c classes, (g, f) token grid, (h, w) pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from probes.heads.attention import AttentionHead
from probes.sources.features import Features, Refine

IGNORED = 255
HeadKind = Literal["linear", "attention"]


@dataclass(frozen=True)
class Optimisation:
    """How a head is trained. decoupled: AdamW's weight decay instead of Adam's."""

    learning_rate: float
    weight_decay: float
    decoupled: bool


class LinearHead(nn.Module):
    """Logits [b, c, ., .] at the resolution of the features: pixels with a decoder, the token grid without."""

    def __init__(self, features: Features, classes: int) -> None:
        super().__init__()
        features = features.for_heads()
        self.low = nn.Conv2d(features.low_bdgf.shape[1], classes, kernel_size=1)
        high = features.high_bkhw
        self.high = None if high is None else nn.Linear(high.shape[1], classes, bias=False)

    def forward(self, features: Features) -> Tensor:
        features = features.for_heads()
        logits_bcgf: Tensor = self.low(features.low_bdgf)
        if self.high is None:
            return logits_bcgf
        high = features.high_bkhw
        assert high is not None
        resized = F.interpolate(logits_bcgf, size=high.shape[-2:], mode="bilinear", align_corners=False)
        # The decoder's map lies channels-last in memory: channels go to the end so that nothing of its size is copied.
        return resized + self.high(high.movedim(1, -1)).movedim(-1, 1)


class DecoderAttentionHead(nn.Module):
    """The attention probe on the features of one source."""

    def __init__(self, features: Features, classes: int) -> None:
        super().__init__()
        assert features.high_bkhw is not None
        self.head = AttentionHead(features.low_bdgf.shape[1], features.high_bkhw.shape[1], classes)

    def forward(self, features: Features) -> Tensor:
        logits: Tensor = self.head(features.low_bdgf, features.high_bkhw)
        return logits


class PixelClassifier:
    """A head and its optimiser. `add` takes the parts of a batch, `step` ends it, `predict` classifies."""

    def __init__(
        self,
        features: Features,
        classes: int,
        kind: HeadKind,
        rules: Optimisation,
        *,
        seed: int,
        refine: Refine | None = None,
    ) -> None:
        """features: any of the source, for its channels. refine: the source's own, for predictions.

        The head is drawn on the CPU, so `seed` means the same everywhere.
        """
        self.refine = refine
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            attends = kind == "attention" and features.for_heads().high_bkhw is not None
            head: nn.Module = (DecoderAttentionHead if attends else LinearHead)(features, classes)
        self.head = head.to(features.low_bdgf.device)
        optimiser = torch.optim.AdamW if rules.decoupled else torch.optim.Adam
        self.optimiser = optimiser(self.head.parameters(), lr=rules.learning_rate, weight_decay=rules.weight_decay)

    def add(self, features: Features, labels_bhw: Tensor, labelled: int) -> float:
        """The part's share of the loss, its gradient added. labelled: pixels with a class in the whole batch.

        Raises
        ------
        ValueError: the loss is not finite.
        """
        loss = summed_loss(self.head(features), labels_bhw) / max(labelled, 1)
        if not bool(torch.isfinite(loss)):
            raise ValueError("the loss of the probe is not finite (NaN or infinity): is the checkpoint intact?")
        loss.backward()
        return float(loss.detach())

    def step(self) -> None:
        self.optimiser.step()
        self.optimiser.zero_grad()

    @torch.no_grad()
    def predict(self, features: Features, side_px: int) -> Tensor:
        """Classes uint8 [b, side_px, side_px]."""
        logits = self.head(features)
        if self.refine is not None:
            logits = self.refine(logits, features)
        return _resized(logits, (side_px, side_px)).argmax(dim=1).to(torch.uint8)


def _resized(logits: Tensor, size_hw: tuple[int, int]) -> Tensor:
    if logits.shape[-2:] == size_hw:
        return logits
    return F.interpolate(logits, size=size_hw, mode="bilinear", align_corners=False)


def summed_loss(logits: Tensor, labels_bhw: Tensor) -> Tensor:
    """Cross-entropy summed over the labelled pixels, with the logits resized to the labels."""
    size_hw = (labels_bhw.shape[-2], labels_bhw.shape[-1])
    return F.cross_entropy(_resized(logits, size_hw), labels_bhw.long(), ignore_index=IGNORED, reduction="sum")


def bank_features(features: Features, cells_per_token: int) -> Tensor:
    """What a feature bank stores: tokens [b, d, g, f], or with a decoder [b, d + k, g t, f t] on a grid `t` times as fine.

    Both halves have unit length, so that a cosine is the mean of the encoder's and the decoder's. Tokens are resized
    bilinearly, the decoder's map is averaged. A dense map that stands alone has its cells to itself.
    """
    low, high = F.normalize(features.low_bdgf, dim=1), features.high_bkhw
    if high is None:
        return low
    grid = (low.shape[-2] * cells_per_token, low.shape[-1] * cells_per_token)
    if features.dense_alone:
        return F.normalize(F.interpolate(high, size=grid, mode="area"), dim=1)
    fine = F.interpolate(features.low_bdgf, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([F.normalize(fine, dim=1), F.normalize(F.interpolate(high, size=grid, mode="area"), dim=1)], dim=1)

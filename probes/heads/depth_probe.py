"""The depth probe: one trained head per feature source over a whole data set, all sources on the same pictures.

Features of batches of pictures and measured depth come in from a stream; the heads that leave give depth in metres. With a decoder a head
is the attention probe with one query per bin (`heads/attention.py`), without one it is a linear layer on the tokens whose
logits are resized bilinearly to every pixel; bins and losses are `heads/depth.py`'s. Adam with the paper's lr 1e-4 and weight
decay 1e-5 (FlowFeat, NeurIPS 2025, section B.3), constant; no augmentation; features are not normalised.

Every picture's logits are computed, turned into depth and forgotten, and computed again for the gradient: what is held at once
is the logits of one picture (236 MB for 256 bins at 480 px, four times over), whatever the batch.

Shape legend: b pictures, d encoder channels, k decoder channels, n bins, (g, f) token grid, (h, w) pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from probes.heads.attention import AttentionHead
from probes.heads.depth import DepthBins, depth_loss
from probes.sources.features import Features, Source

LEARNING_RATE = 1e-4
WEIGHT_DECAY = 1e-5
BATCH = 16


class DepthHead(nn.Module):
    """Features of a source → depth in metres [b, 1, h, w]."""

    def __init__(self, features: Features, bins: DepthBins) -> None:
        super().__init__()
        self.bins = bins
        features = features.for_heads()
        low, high = features.low_bdgf, features.high_bkhw
        if high is None:
            self.logits: nn.Module = nn.Conv2d(low.shape[1], bins.bins, kernel_size=1)
        else:
            self.logits = AttentionHead(low.shape[1], high.shape[1], bins.bins)
        self.to(low.device)

    def forward(self, features: Features, size_hw: tuple[int, int]) -> Tensor:
        pictures = [features.picture(index).for_heads() for index in range(len(features.low_bdgf))]
        if not torch.is_grad_enabled():
            return torch.cat([self._depth(one.low_bdgf, one.high_bkhw, size_hw) for one in pictures])
        return torch.cat(
            [
                checkpoint(self._depth, one.low_bdgf, one.high_bkhw, size_hw, use_reentrant=False)  # see the docstring
                for one in pictures
            ]
        )

    def _depth(self, low_bdgf: Tensor, high_bkhw: Tensor | None, size_hw: tuple[int, int]) -> Tensor:
        logits = self.logits(low_bdgf) if high_bkhw is None else self.logits(low_bdgf, high_bkhw)
        if logits.shape[-2:] != size_hw:
            logits = F.interpolate(logits, size=size_hw, mode="bilinear", align_corners=False)
        return self.bins.depth_from_logits(logits)


@dataclass
class DepthProbe:
    """A head and its optimiser. Made by `train` when the widths of the features are known."""

    head: DepthHead
    optimiser: torch.optim.Adam = field(repr=False)

    def step(self, features: Features, truth_b1hw: Tensor) -> None:
        """One update. Raises ValueError when the loss is no longer a number."""
        size_hw = (truth_b1hw.shape[-2], truth_b1hw.shape[-1])
        loss = depth_loss(self.head(features, size_hw), truth_b1hw, self.head.bins.farthest_m)
        if not bool(torch.isfinite(loss)):
            raise ValueError("the depth probe's loss is not finite (NaN or infinity): is the checkpoint intact?")
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    @torch.no_grad()
    def predict(self, features: Features, size_hw: tuple[int, int]) -> Tensor:
        return self.head(features, size_hw)


def new_probe(features: Features, bins: DepthBins, *, seed: int, learning_rate: float) -> DepthProbe:
    """Drawn on the CPU from `seed`, so that it is the same on every device; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = DepthHead(features, bins)
    return DepthProbe(head, torch.optim.Adam(head.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY))


def train(
    batches: Iterable[tuple[Iterable[tuple[Source, Features]], Tensor]],
    bins: DepthBins,
    *,
    seed: int,
    learning_rate: float = LEARNING_RATE,
    step: Callable[[int], None] = lambda steps: None,
) -> dict[str, DepthProbe]:
    """A trained probe per source name. batches: every source with its features of the batch, and depth in metres [b, 1, h, w]."""
    probes: dict[str, DepthProbe] = {}
    for several, truth_b1hw in batches:
        for source, features in several:
            if source.name not in probes:
                probes[source.name] = new_probe(features, bins, seed=seed, learning_rate=learning_rate)
            probes[source.name].step(features, truth_b1hw)
            step(1)
    return probes

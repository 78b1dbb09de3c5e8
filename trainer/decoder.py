"""The DPT decoder: four token maps of the frozen encoder in, a feature vector for every pixel out.

Each map is projected and brought to its own scale (4x, 2x, 1x, 1/2 of the token grid), then fused from coarse to fine
and read out at image resolution. Names and widths are those of the published FlowFeat files, including a residual unit
that no path uses. Tensors stay channels-last in memory, so that the last LayerNorm runs over channels without a copy.

Shape legend: B images, D encoder width, gh x gw token grid, C feature channels, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualUnit(nn.Module):
    """relu(x) + conv2(relu(conv1(relu(x)))).

    The official unit rectifies in place, so its skip carries the rectified x, not x itself; trained weights depend on it.
    Overwrites its argument: every caller hands over a tensor that nobody else reads.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_bchw: Tensor) -> Tensor:
        skip = x_bchw.relu_()
        y: Tensor = self.conv2(self.conv1(skip).relu_())
        return y.add_(skip)


class Fusion(nn.Module):
    """up2(R_b(path + R_a(level))): the coarser path joins a level and doubles its size. The path is not rectified before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.resConfUnit1 = ResidualUnit(channels)
        self.resConfUnit2 = ResidualUnit(channels)

    def forward(self, level_bchw: Tensor, path_bchw: Tensor | None = None) -> Tensor:
        joined = level_bchw if path_bchw is None else self.resConfUnit1(level_bchw).add_(path_bchw)
        refined = self.resConfUnit2(joined)
        return F.interpolate(refined, scale_factor=2, mode="bilinear", align_corners=True)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each pixel, eps 1e-6."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x_bchw: Tensor) -> Tensor:
        normed: Tensor = self.norm(x_bchw.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


class Level(nn.Module):
    """Token map D -> its level's width, then to the level's scale."""

    def __init__(self, dim: int, width: int, resample: nn.Module | None) -> None:
        super().__init__()
        projection = nn.Conv2d(dim, width, 1)
        self.post = nn.Sequential(projection) if resample is None else nn.Sequential(projection, resample)

    def forward(self, tokens_bdhw: Tensor) -> Tensor:
        level: Tensor = self.post(tokens_bdhw)
        return level


class Scratch(nn.Module):
    """Holds the fusion layers under the name they have in the published files."""

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        for number, width in enumerate(widths, start=1):
            self.add_module(f"layer{number}_rn", nn.Conv2d(width, channels, 3, padding=1, bias=False))
        for number in range(1, 5):
            # refinenet4 has no path to join: its resConfUnit1 is never run, but strict loading needs its weights
            self.add_module(f"refinenet{number}", Fusion(channels))
        self.output_conv0 = nn.Conv2d(channels, channels, 3, padding=1)
        self.output_conv1 = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 1)
        )


class DPTDecoder(nn.Module):
    """dim: encoder width D. widths: channels of the four levels, finest first. feature_dim: C, of all inner layers and the output."""

    def __init__(self, dim: int, widths: Sequence[int], feature_dim: int = 128) -> None:
        super().__init__()
        if len(widths) != 4:
            raise ValueError(f"the decoder has four levels; {len(widths)} widths were given: {tuple(widths)}")
        w1, w2, w3, w4 = widths
        self.feature_dim = feature_dim
        self.act_postprocess1 = Level(dim, w1, nn.ConvTranspose2d(w1, w1, 4, stride=4))
        self.act_postprocess2 = Level(dim, w2, nn.ConvTranspose2d(w2, w2, 2, stride=2))
        self.act_postprocess3 = Level(dim, w3, None)
        self.act_postprocess4 = Level(dim, w4, nn.Conv2d(w4, w4, 3, stride=2, padding=1))
        self.scratch = Scratch(widths, feature_dim)
        self.norm = ChannelNorm(feature_dim)

    def forward(self, maps_bdhw: Sequence[Tensor], size_hw: tuple[int, int]) -> Tensor:
        """Four maps [B, D, gh, gw], shallow block first, with even gh and gw -> features [B, C, H, W] for size_hw = (H, W)."""
        path: Tensor | None = None
        for number in (4, 3, 2, 1):
            level = getattr(self, f"act_postprocess{number}")(maps_bdhw[number - 1])
            level = getattr(self.scratch, f"layer{number}_rn")(level)
            path = getattr(self.scratch, f"refinenet{number}")(level, path)
        dense = F.interpolate(self.scratch.output_conv0(path), size=size_hw, mode="bilinear", align_corners=False)
        features: Tensor = self.norm(self.scratch.output_conv1(dense))
        return features

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """PyTorch's default initialisation, as in the official code, drawn from `generator`: U(+-1/sqrt(fan-in)); norm 1 and 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                bound = 1 / math.sqrt(math.prod(module.weight.shape[1:]))
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-bound, bound, generator=generator)
            elif isinstance(module, nn.LayerNorm):
                module.weight.fill_(1.0)
                module.bias.zero_()

"""The attention probe: class embeddings that look at the decoder's features before they are compared with every pixel.

Encoder tokens and the decoder's map come in; logits at every pixel of the decoder's map go out, for segmentation (one class
per query) and depth (one bin per query). FlowFeat, NeurIPS 2025, sections B.2 and B.3; the numbers follow the published
module of the authors' repository:

    x_lo  = bilinear(y_dec) to (floor(h / s), floor(w / s))                                      [b, k, ., .]
    out_c = proj(concat over heads of softmax(projq(query_c) . projk(x_lo) / sqrt(k / heads)) projv(x_lo))
    z_c   = <y_dec(pixel), out_c> / k                      (divided by k itself, not by its root)
    logits = bilinear(W y_enc + b) to the size of z, plus z

There is no residual and no MLP. With `with_norm` four things are normalised over channels: x_lo and the full-resolution map
(by one LayerNorm), the queries, and the attention's output.

Memory: x_lo holds 1 / s^2 of the decoder's map, the logits b * c * h * w * 4 bytes (60 MB per picture for 256 bins at 256 px,
236 MB at 480 px); `with_norm` adds a normalised copy of the decoder's map. The attention matrix, heads * c * (h / s) * (w / s)
numbers, is left to torch's fused attention where that exists.

Shape legend: b pictures, d encoder channels, k decoder channels, c queries, (g, f) token grid, (h, w) pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = 8
DOWNSCALE = 4
"""s of x_lo; the paper doesn't say which was used."""


class CrossAttention(nn.Module):
    """Multi-head attention of queries [b, c, k] to a map's cells [b, n, k]; only the output projection has a bias."""

    def __init__(self, channels: int, heads: int = HEADS) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} heads")
        self.heads = heads
        self.projq = nn.Linear(channels, channels, bias=False)
        self.projk = nn.Linear(channels, channels, bias=False)
        self.projv = nn.Linear(channels, channels, bias=False)
        self.proj = nn.Linear(channels, channels)

    def _by_head(self, tokens_bnk: Tensor) -> Tensor:
        """[b, n, k] → [b, heads, n, k / heads]"""
        return tokens_bnk.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, queries_bck: Tensor, cells_bnk: Tensor) -> Tensor:
        q = self._by_head(self.projq(queries_bck))
        k = self._by_head(self.projk(cells_bnk))
        v = self._by_head(self.projv(cells_bnk))
        attended = F.scaled_dot_product_attention(q, k, v)  # divides by the root of the width of a head
        return self.proj(attended.transpose(1, 2).flatten(2))


class CrossAttentionProbe(nn.Module):
    """z_c of the module's docstring: the decoder's map [b, k, h, w] → [b, c, h, w]. Keys as in the published module."""

    def __init__(
        self,
        channels: int,
        queries: int,
        *,
        heads: int = HEADS,
        downscale: int = DOWNSCALE,
        with_norm: bool = False,
    ) -> None:
        super().__init__()
        self.downscale = downscale
        self.queries = nn.Parameter(0.1 * torch.randn(1, queries, channels) / channels)
        self.cross_attn = CrossAttention(channels, heads)
        self.norm: nn.Module = nn.LayerNorm(channels) if with_norm else nn.Identity()
        self.norm1: nn.Module = nn.LayerNorm(channels) if with_norm else nn.Identity()
        self.norm2: nn.Module = nn.LayerNorm(channels) if with_norm else nn.Identity()

    def embeddings(self, high_bkhw: Tensor) -> Tensor:
        """out [b, c, k]: what each query has become after looking at the picture."""
        h, w = high_bkhw.shape[-2:]
        size = (max(h // self.downscale, 1), max(w // self.downscale, 1))
        low_bkyx = F.interpolate(high_bkhw, size=size, mode="bilinear", align_corners=False)
        cells_bnk = self.norm(low_bkyx.flatten(2).transpose(1, 2))
        queries_bck = self.norm1(self.queries).expand(len(high_bkhw), -1, -1)
        return self.norm2(self.cross_attn(queries_bck, cells_bnk))

    def forward(self, high_bkhw: Tensor) -> Tensor:
        # Channels go to the end, where the norm works and where the decoder's map has them in memory.
        pixels_bhwk = self.norm(high_bkhw.movedim(1, -1))
        z_bhwc = torch.einsum("bhwk,bck->bhwc", pixels_bhwk, self.embeddings(high_bkhw))
        return z_bhwc.movedim(-1, 1) / high_bkhw.shape[1]


class AttentionHead(nn.Module):
    """Logits [b, c, h, w] from tokens [b, d, g, f] and the decoder's map [b, k, h, w]: a linear share plus z."""

    def __init__(
        self,
        encoder_channels: int,
        decoder_channels: int,
        classes: int,
        *,
        heads: int = HEADS,
        downscale: int = DOWNSCALE,
        with_norm: bool = False,
    ) -> None:
        super().__init__()
        self.linear = nn.Conv2d(encoder_channels, classes, kernel_size=1)
        self.attention = CrossAttentionProbe(
            decoder_channels, classes, heads=heads, downscale=downscale, with_norm=with_norm
        )

    def forward(self, low_bdgf: Tensor, high_bkhw: Tensor) -> Tensor:
        size = (high_bkhw.shape[-2], high_bkhw.shape[-1])
        linear_bchw = F.interpolate(self.linear(low_bdgf), size=size, mode="bilinear", align_corners=False)
        return linear_bchw + self.attention(high_bkhw)

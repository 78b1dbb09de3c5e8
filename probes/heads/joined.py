"""One map per source to match points in: the decoder's features, the encoder's, or both side by side.

With both, tokens are resized bilinearly to the decoder's map and each of the two is brought to unit length per cell, so that a
cosine of the joined features is the mean of the two cosines. The paper joins them the same way for its probes (FlowFeat,
NeurIPS 2025, section B.1), without lengths. A source without a decoder has its token grid in any case, one
whose dense map stands alone that map.

Memory of a joined map: 4 (d + k) h w bytes, 0.18 GB for 384 + 128 channels at 256x341 pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from probes.sources.features import Features

Matched = Literal["both", "decoder"]


def joined_map(features: Features, matched: Matched) -> Tensor:
    """[c, g, f] of the first picture."""
    low_bdgf, high_bkhw = features.low_bdgf[:1], features.high_bkhw
    if high_bkhw is None:
        return low_bdgf[0]
    high_bkhw = high_bkhw[:1]
    if matched == "decoder" or features.dense_alone:
        return high_bkhw[0]
    size = (high_bkhw.shape[-2], high_bkhw.shape[-1])
    tokens = F.interpolate(low_bdgf, size=size, mode="bilinear", align_corners=False)
    return torch.cat([F.normalize(tokens, dim=1), F.normalize(high_bkhw, dim=1)], dim=1)[0]

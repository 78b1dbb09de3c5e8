"""How much of what features show inside a patch is the patch's own lattice, and nothing of the picture.

Dense features of frozen patch encoders come in, one number goes out: for the training log's held-out figures
(`trainer.holdout`) and for every report of `probes`. Why training makes a lattice and what removes it: docs/ahead.md.

With y_igqc feature c at place q of the p x p pixels of patch g in image i, and G patches per image:
    d_igqc = y_igqc - mean_q y_igqc                  what varies inside the patches
    m_iqc  = mean_g d_igqc                           of it, what depends on the place in the patch alone
    share  = sum_iqc G m_iqc^2 / sum_igqc d_igqc^2
0 where features are constant inside patches or every patch has a pattern of its own that averages out; 1 where all patches of an
image show the same pattern. Patterns without any order have a share of 1 / G. A slope that runs through the whole image
is the same in every patch and counts too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class LatticeSums:
    """Numerator and denominator of the share, added up batch by batch; features of any size and number."""

    patch: int
    repeated: float = 0.0
    within: float = 0.0

    @torch.no_grad()
    def add(self, features_bchw: Tensor) -> None:
        """Features [B, C, H, W] of B images; rows and columns beyond whole patches are left out."""
        p, (b, c, h, w) = self.patch, features_bchw.shape
        gh, gw = h // p, w // p
        patches = features_bchw[..., : gh * p, : gw * p].reshape(b, c, gh, p, gw, p)
        within = patches.float() - patches.float().mean(dim=(3, 5), keepdim=True)
        repeated = within.mean(dim=(2, 4)).square().sum() * (gh * gw)
        sums = torch.stack((repeated, within.square().sum())).tolist()
        self.repeated, self.within = self.repeated + sums[0], self.within + sums[1]

    def share(self) -> float:
        """0 to 1; 0 where nothing varies inside patches."""
        return self.repeated / self.within if self.within else 0.0


def lattice_share(features_bchw: Tensor, patch: int) -> float:
    """The share of one batch of features [B, C, H, W] from an encoder whose patches are `patch` pixels wide."""
    sums = LatticeSums(patch)
    sums.add(features_bchw)
    return sums.share()

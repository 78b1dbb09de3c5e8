"""The depth head: logits over fixed depth bins become metres, and two losses compare them with a depth sensor's.

Logits of any probe with one class per bin come in (256 in the paper); depth maps in metres go out, and losses for training.
FlowFeat (NeurIPS 2025, section B.3) follows Probe3D (El Banani et al., CVPR 2024), where "AdaBins" means bins that are fixed,
not adaptive (Bhat et al., CVPR 2021):

    p_i = (relu(logit_i) + 0.1) / sum_j (relu(logit_j) + 0.1)        depth = sum_i p_i c_i,  c = linspace(0.001, 10, bins)

With g = log(prediction + 1e-3) - log(truth + 1e-3) at valid pixels (0 < truth <= 10 m), the loss is 10 sig + 0.5 grad:

    sig  = sqrt(mean g^2 - 0.85 (mean g)^2)                          over the valid pixels of the whole batch (Eigen et al., 2014)
    grad = sum over strides 1, 2, 4, 6 of sum |g_i - g_(i+2)| / #valid
           both axes, on every s-th row and column, where both ends are valid

`depth_from_logits` holds at most two arrays of the size of its logits (236 MB each for 256 bins at 480 px).

Shape legend: b pictures, n bins, (h, w) pixels; a depth map is [b, 1, h, w] in metres, 0 where the sensor saw nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LOG_OFFSET_M = 1e-3
VARIANCE_FOCUS = 0.85
STRIDES = (1, 2, 4, 6)
"""Of the gradient term. 6, not 8: so it stands in Probe3D."""

Normalisation = Literal["linear", "softmax", "sigmoid"]


@dataclass(frozen=True)
class DepthBins:
    """Evenly spaced bin centres, the first at `nearest_m` and the last at `farthest_m`."""

    bins: int = 256
    nearest_m: float = 0.001
    farthest_m: float = 10.0
    normalisation: Normalisation = "linear"

    def centres(self, like: Tensor) -> Tensor:
        """[n] in metres."""
        return torch.linspace(self.nearest_m, self.farthest_m, self.bins, device=like.device, dtype=like.dtype)

    def depth_from_logits(self, logits_bnhw: Tensor) -> Tensor:
        """[b, 1, h, w]: the mean of the bins' centres under the normalised logits.

        Raises
        ------
        ValueError: other than one logit per bin.
        """
        if logits_bnhw.shape[1] != self.bins:
            raise ValueError(f"{logits_bnhw.shape[1]} logits for {self.bins} bins")
        if self.normalisation == "linear":
            weights = torch.relu(logits_bnhw) + 0.1
        elif self.normalisation == "softmax":
            weights = logits_bnhw.softmax(dim=1)
        else:
            weights = torch.sigmoid(logits_bnhw)
        centres = self.centres(logits_bnhw)
        return torch.einsum("bnhw,n->bhw", weights, centres)[:, None] / weights.sum(dim=1, keepdim=True)


NYU_BINS = DepthBins()


def valid_pixels(truth: Tensor, farthest_m: float = NYU_BINS.farthest_m) -> Tensor:
    """bool: where the sensor measured something, and nothing beyond the last bin."""
    return (truth > 0) & (truth <= farthest_m)


def _log_difference(prediction: Tensor, truth: Tensor, valid: Tensor, offset_m: float = LOG_OFFSET_M) -> Tensor:
    """g at valid pixels, 0 elsewhere. What isn't valid is replaced before the logarithm, so that no NaN enters a gradient."""
    prediction, truth = (torch.where(valid, depth, 1.0) for depth in (prediction, truth))
    return torch.log(prediction + offset_m) - torch.log(truth + offset_m)


def _sigma(g: Tensor) -> Tensor:
    """sqrt(mean g^2 - 0.85 (mean g)^2); 0 for a prediction that is exact or has no pixel to be compared at."""
    if g.numel() == 0:
        return g.sum()
    squared = g.square().mean() - VARIANCE_FOCUS * g.mean().square()
    # The root's slope is infinite at 0: an exact prediction has nothing to learn, so it gets no gradient.
    return torch.where(squared > 0, torch.where(squared > 0, squared, 1.0).sqrt(), 0.0)


def sigma_loss(prediction: Tensor, truth: Tensor, farthest_m: float = NYU_BINS.farthest_m) -> Tensor:
    """sig: scale-invariant log error over the batch's valid pixels."""
    valid = valid_pixels(truth, farthest_m)
    return _sigma(_log_difference(prediction, truth, valid)[valid])


def gradient_loss(prediction: Tensor, truth: Tensor, farthest_m: float = NYU_BINS.farthest_m) -> Tensor:
    """grad: differences of g between pixels two apart, at four strides."""
    valid = valid_pixels(truth, farthest_m)
    g = _log_difference(prediction, truth, valid)
    total = g.new_zeros(())
    for stride in STRIDES:
        strided, usable = g[..., ::stride, ::stride], valid[..., ::stride, ::stride]
        down = (strided[..., 2:, :] - strided[..., :-2, :]).abs() * (usable[..., 2:, :] & usable[..., :-2, :])
        across = (strided[..., 2:] - strided[..., :-2]).abs() * (usable[..., 2:] & usable[..., :-2])
        total = total + (down.sum() + across.sum()) / usable.sum().clamp(min=1)
    return total


def depth_loss(prediction: Tensor, truth: Tensor, farthest_m: float = NYU_BINS.farthest_m) -> Tensor:
    """10 sig + 0.5 grad: what the depth probe is trained with."""
    return 10 * sigma_loss(prediction, truth, farthest_m) + 0.5 * gradient_loss(prediction, truth, farthest_m)


def scale_invariant_loss(prediction: Tensor, truth: Tensor, farthest_m: float = NYU_BINS.farthest_m) -> Tensor:
    """Ten times the mean over pictures of each one's own sig, without the 1e-3 in the logarithms (AdaBins' form)."""
    valid = valid_pixels(truth, farthest_m)
    g = _log_difference(prediction, truth, valid, offset_m=0.0)
    return 10 * torch.stack([_sigma(one[where]) for one, where in zip(g, valid, strict=True)]).mean()

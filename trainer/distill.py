"""The method's formulas: one linear map per image, one flow that the map has to explain.

Features of two views of a frame and the flow of each come in (`trainer.views` cuts them, `trainer.update` makes one step of
training out of them). The teacher (an EMA copy of the decoder) sees view 1; a ridge regression from its features to the
flow of view 1 gives a linear map per image. The same map applied to the student's features of view 2 must predict the flow
of view 2: what is linearly decodable as motion in one view has to be so, with the same coefficients, in the other. Out go
the losses. (FlowFeat, NeurIPS 2025; Eq. 4 is the ridge, which the authors' code divides by N and gives a bias.)

Pixels may have weights, how far their flow is trusted: w [b, 1, h, w] in 0..1 (`loss.confidence`). Then every mean over the pixels
of an image is sum_p w_p(.) / sum_p w_p; equal weights change nothing, and an image without any weight contributes 0.

Shapes: b images, c channels (2 for flow: dx, dy), d feature channels, h x w pixels of a view, N = h * w.
Everything here is float32, whatever precision the networks run in: the 129 x 129 normal equations and the
differences inside the losses do not survive bfloat16.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

FOCAL_WEIGHT_FLOOR = 1e-6  # a crop of constant flow has no edges at all: 0 / floor instead of 0 / 0

WEIGHT_SUM_FLOOR = 1e-6  # an image whose flow is trusted nowhere: 0 / floor instead of 0 / 0

FlowLoss = Literal["l1", "l2", "smooth_l1", "huber"]
GradientLoss = Literal["magnitude", "signed"]


# --- one linear map per image ----------------------------------------------------------------------------------------


@torch.no_grad()
def fit_linear_map(x_bdhw: Tensor, u_b2hw: Tensor, alpha: float, weights_b1hw: Tensor | None = None) -> Tensor:
    """Ridge regression from features to flow, A = (X'X / N + alpha I)^-1 X'u / N with X = [x, 1]; [b, d + 1, 2] (Eq. 4).

    Divided by the number of pixels, so alpha does not depend on the view size; the bias column (last row of A) is
    regularised like the others. X with its column of ones is never built: the Gram matrix is assembled from the
    features' second moments and their mean. No gradient flows through A: the map is a constant of the step.
    alpha must be positive: a LayerNorm ties the features and the bias, so the plain system is singular.
    u may be the flows to several neighbours, [b, 2 K, h, w]: K maps at the price of one Gram matrix, [b, d + 1, 2 K].
    weights: weighted least squares, A = (X'WX / tr W + alpha I)^-1 X'Wu / tr W with W = diag(w).
    """
    assert alpha > 0, alpha
    if weights_b1hw is not None:
        return _fit_weighted(x_bdhw, u_b2hw, alpha, weights_b1hw)
    with torch.autocast(x_bdhw.device.type, enabled=False):
        x_bdn, u_b2n = x_bdhw.float().flatten(2), u_b2hw.float().flatten(2)
        b, d, n = x_bdn.shape
        gram = x_bdn.new_empty(b, d + 1, d + 1)
        gram[:, :d, :d] = torch.bmm(x_bdn, x_bdn.transpose(1, 2)) / n
        gram[:, :d, d] = gram[:, d, :d] = x_bdn.mean(dim=2)
        gram[:, d, d] = 1.0
        gram.diagonal(dim1=1, dim2=2).add_(alpha)
        right = x_bdn.new_empty(b, d + 1, u_b2n.shape[1])
        right[:, :d] = torch.bmm(x_bdn, u_b2n.transpose(1, 2)) / n
        right[:, d] = u_b2n.mean(dim=2)
        # The unchecked factorisation does not wait for the device; broken features turn into NaN, which the
        # training loop's guard on the loss reports together with the samples.
        factor, _ = torch.linalg.cholesky_ex(gram)
        return torch.cholesky_solve(right, factor)


def _fit_weighted(x_bdhw: Tensor, u_b2hw: Tensor, alpha: float, weights_b1hw: Tensor) -> Tensor:
    """The same system with the rows of X and u counted w_p / sum_p w_p instead of 1 / N; in float64 where the input is."""
    with torch.autocast(x_bdhw.device.type, enabled=False):
        kind = torch.promote_types(x_bdhw.dtype, torch.float32)
        x_bdn, u_b2n = x_bdhw.to(kind).flatten(2), u_b2hw.to(kind).flatten(2)
        share_b1n = weights_b1hw.to(kind).flatten(2)
        share_b1n = share_b1n / share_b1n.sum(dim=2, keepdim=True).clamp_min(WEIGHT_SUM_FLOOR)
        b, d, _ = x_bdn.shape
        weighted_bdn = x_bdn * share_b1n
        gram = x_bdn.new_empty(b, d + 1, d + 1)
        gram[:, :d, :d] = torch.bmm(weighted_bdn, x_bdn.transpose(1, 2))
        gram[:, :d, d] = gram[:, d, :d] = weighted_bdn.sum(dim=2)
        gram[:, d, d] = share_b1n.sum(dim=(1, 2))
        gram.diagonal(dim1=1, dim2=2).add_(alpha)
        right = x_bdn.new_empty(b, d + 1, 2)
        right[:, :d] = torch.bmm(weighted_bdn, u_b2n.transpose(1, 2))
        right[:, d] = (u_b2n * share_b1n).sum(dim=2)
        factor, _ = torch.linalg.cholesky_ex(gram)
        return torch.cholesky_solve(right, factor)


def predict_flow(x_bdhw: Tensor, map_bD2: Tensor) -> Tensor:
    """Apply each image's linear map to its features: u* = [x, 1] A as [b, 2, h, w] float32, differentiable in x."""
    with torch.autocast(x_bdhw.device.type, enabled=False):
        weight_b2d, bias_b21 = map_bD2[:, :-1].transpose(1, 2), map_bD2[:, -1].unsqueeze(2)
        return torch.baddbmm(bias_b21, weight_b2d, x_bdhw.float().flatten(2)).unflatten(2, x_bdhw.shape[-2:])


# --- losses ----------------------------------------------------------------------------------------------------------


def flow_loss(
    predicted_b2hw: Tensor, target_b2hw: Tensor, kind: FlowLoss = "l1", weights_b1hw: Tensor | None = None
) -> Tensor:
    """Distance between flows in standardised units. "l1" sums the two channels and averages over pixels and
    images; the ablations "l2", "smooth_l1" and "huber" (beta 1) average over the channels as well."""
    if weights_b1hw is not None:
        return _weighted_flow_loss(predicted_b2hw, target_b2hw, kind, weights_b1hw)
    if kind == "l1":
        return (predicted_b2hw - target_b2hw).abs().sum(dim=1).mean()
    if kind == "l2":
        return F.mse_loss(predicted_b2hw, target_b2hw)
    # with beta 1 the other two are one function; both names are kept because both ablations are
    return F.smooth_l1_loss(predicted_b2hw, target_b2hw)


def _weighted_flow_loss(predicted_b2hw: Tensor, target_b2hw: Tensor, kind: FlowLoss, weights_b1hw: Tensor) -> Tensor:
    """Per image the weighted mean over pixels, then the mean over images."""
    if kind == "l1":
        error_bhw = (predicted_b2hw - target_b2hw).abs().sum(dim=1)
    elif kind == "l2":
        error_bhw = (predicted_b2hw - target_b2hw).square().mean(dim=1)
    else:
        error_bhw = F.smooth_l1_loss(predicted_b2hw, target_b2hw, reduction="none").mean(dim=1)
    weights_bhw = weights_b1hw[:, 0]
    total_b = weights_bhw.sum(dim=(-2, -1)).clamp_min(WEIGHT_SUM_FLOOR)
    return ((weights_bhw * error_bhw).sum(dim=(-2, -1)) / total_b).mean()


def gradient_loss(
    predicted_b2hw: Tensor,
    target_b2hw: Tensor,
    sigma: float,
    kind: GradientLoss = "magnitude",
    weights_b1hw: Tensor | None = None,
) -> Tensor:
    """Focal gradient matching: the prediction must have the flow's edges where the flow has edges.

    Per axis, with a and b the forward differences of target and prediction: sum over pixels of w |b - a|,
    averaged over images and channels, w = 1 - exp(-|a| / sigma) normalised to sum 1 per image and channel. A crop of
    constant flow has w = 0 everywhere and contributes 0. "magnitude" compares |a| and |b| instead: any texture as strong as
    the flow's edges then lowers the term, whichever way it points (docs/ahead.md). Weights: a difference counts as much as
    both its pixels, w is multiplied by the product of the two before it is normalised.
    """
    total = predicted_b2hw.new_zeros(())
    for axis in (-1, -2):
        a = target_b2hw.diff(dim=axis)
        b = predicted_b2hw.diff(dim=axis)
        if kind == "magnitude":
            a, b = a.abs(), b.abs()
        weight = 1 - torch.exp(-a.abs() / sigma)
        if weights_b1hw is not None:
            length = weights_b1hw.shape[axis] - 1
            weight = weight * weights_b1hw.narrow(axis, 0, length) * weights_b1hw.narrow(axis, 1, length)
        weight = weight / weight.sum(dim=(-2, -1), keepdim=True).clamp_min(FOCAL_WEIGHT_FLOOR)
        total = total + (weight * (b - a).abs()).sum(dim=(-2, -1)).mean()
    return total

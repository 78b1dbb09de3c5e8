"""The method's formulas: one linear map per image, one flow that the map has to explain.

Features of two views of a frame and the flow of each come in (`trainer.views` cuts them, `trainer.update` makes one step of
training out of them). The teacher (an EMA copy of the decoder) sees view 1; a ridge regression from its features to the
flow of view 1 gives a linear map per image. The same map applied to the student's features of view 2 must predict the flow
of view 2: what is linearly decodable as motion in one view has to be so, with the same coefficients, in the other. Out go
the losses. (FlowFeat, NeurIPS 2025; Eq. 4 is the ridge, which the authors' code divides by N and gives a bias.)

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

FlowLoss = Literal["l1", "l2", "smooth_l1", "huber"]


# --- one linear map per image ----------------------------------------------------------------------------------------


@torch.no_grad()
def fit_linear_map(x_bdhw: Tensor, u_b2hw: Tensor, alpha: float) -> Tensor:
    """Ridge regression from features to flow, A = (X'X / N + alpha I)^-1 X'u / N with X = [x, 1]; [b, d + 1, 2] (Eq. 4).

    Divided by the number of pixels, so alpha does not depend on the view size; the bias column (last row of A) is
    regularised like the others. X with its column of ones is never built: the Gram matrix is assembled from the
    features' second moments and their mean. No gradient flows through A: the map is a constant of the step.
    alpha must be positive: a LayerNorm ties the features and the bias, so the plain system is singular.
    """
    assert alpha > 0, alpha
    with torch.autocast(x_bdhw.device.type, enabled=False):
        x_bdn, u_b2n = x_bdhw.float().flatten(2), u_b2hw.float().flatten(2)
        b, d, n = x_bdn.shape
        gram = x_bdn.new_empty(b, d + 1, d + 1)
        gram[:, :d, :d] = torch.bmm(x_bdn, x_bdn.transpose(1, 2)) / n
        gram[:, :d, d] = gram[:, d, :d] = x_bdn.mean(dim=2)
        gram[:, d, d] = 1.0
        gram.diagonal(dim1=1, dim2=2).add_(alpha)
        right = x_bdn.new_empty(b, d + 1, 2)
        right[:, :d] = torch.bmm(x_bdn, u_b2n.transpose(1, 2)) / n
        right[:, d] = u_b2n.mean(dim=2)
        # The unchecked factorisation does not wait for the device; broken features turn into NaN, which the
        # training loop's guard on the loss reports together with the samples.
        factor, _ = torch.linalg.cholesky_ex(gram)
        return torch.cholesky_solve(right, factor)


def predict_flow(x_bdhw: Tensor, map_bD2: Tensor) -> Tensor:
    """Apply each image's linear map to its features: u* = [x, 1] A as [b, 2, h, w] float32, differentiable in x."""
    with torch.autocast(x_bdhw.device.type, enabled=False):
        weight_b2d, bias_b21 = map_bD2[:, :-1].transpose(1, 2), map_bD2[:, -1].unsqueeze(2)
        return torch.baddbmm(bias_b21, weight_b2d, x_bdhw.float().flatten(2)).unflatten(2, x_bdhw.shape[-2:])


# --- losses ----------------------------------------------------------------------------------------------------------


def flow_loss(predicted_b2hw: Tensor, target_b2hw: Tensor, kind: FlowLoss = "l1") -> Tensor:
    """Distance between flows in standardised units. "l1" sums the two channels and averages over pixels and
    images; the ablations "l2", "smooth_l1" and "huber" (beta 1) average over the channels as well."""
    if kind == "l1":
        return (predicted_b2hw - target_b2hw).abs().sum(dim=1).mean()
    if kind == "l2":
        return F.mse_loss(predicted_b2hw, target_b2hw)
    # with beta 1 the other two are one function; both names are kept because both ablations are
    return F.smooth_l1_loss(predicted_b2hw, target_b2hw)


def gradient_loss(predicted_b2hw: Tensor, target_b2hw: Tensor, sigma: float) -> Tensor:
    """Focal gradient matching: the prediction's edges must be as strong as the flow's, where the flow has edges.

    Per axis, with a and b the magnitudes of forward differences of target and prediction: sum over pixels of w |b - a|,
    averaged over images and channels, w = 1 - exp(-a / sigma) normalised to sum 1 per image and channel. A crop of
    constant flow has w = 0 everywhere and contributes 0.
    """
    total = predicted_b2hw.new_zeros(())
    for axis in (-1, -2):
        a = target_b2hw.diff(dim=axis).abs()
        b = predicted_b2hw.diff(dim=axis).abs()
        weight = 1 - torch.exp(-a / sigma)
        weight = weight / weight.sum(dim=(-2, -1), keepdim=True).clamp_min(FOCAL_WEIGHT_FLOOR)
        total = total + (weight * (b - a).abs()).sum(dim=(-2, -1)).mean()
    return total

"""The method on one page: two views of one frame, one linear map per image, one flow that the map has to explain.

A frame and the flow from it to a neighbour come in. Two random crops are cut from both with the same sampling grids.
The teacher (an EMA copy of the decoder) sees view 1; a ridge regression from its features to the flow of view 1 gives a
linear map per image. The same map applied to the student's features of view 2 must predict the flow of view 2: what is
linearly decodable as motion in one view has to be so, with the same coefficients, in the other. Out go the losses.
(FlowFeat, NeurIPS 2025; Eq. 4 is the ridge, which the authors' code divides by N and gives a bias.)

Shapes: b images, c channels (2 for flow: dx, dy), d feature channels, h x w pixels of a view, N = h * w.
Everything here is float32, whatever precision the networks run in: the 129 x 129 normal equations and the
differences inside the losses do not survive bfloat16.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

STD_EPS = 1e-5  # in half image extents, as the flow is when it is standardised: about 0.001 px at 224
FOCAL_WEIGHT_FLOOR = 1e-6  # a crop of constant flow has no edges at all: 0 / floor instead of 0 / 0

FlowLoss = Literal["l1", "l2", "smooth_l1", "huber"]


# --- views -----------------------------------------------------------------------------------------------------------


def crop_theta(scale_b: Tensor, top_b: Tensor, left_b: Tensor, source_hw: tuple[int, int]) -> Tensor:
    """Affine matrices [b, 2, 3] (output to input, the convention of `affine_grid`) of square-scale crops.

    `scale_b` is the crop's share of both axes, `top_b` / `left_b` the corner in whole source pixels. The matrix keeps
    the drawn scale itself although the box it centres on is floor(scale * size) wide: up to one pixel of zero padding
    can blend in at the border. That is how the published models were trained, so it stays.
    """
    height, width = source_hw
    scale_b = scale_b.double()
    box_h, box_w = torch.floor(scale_b * height), torch.floor(scale_b * width)
    theta = torch.zeros(len(scale_b), 2, 3, dtype=torch.float64, device=scale_b.device)
    theta[:, 0, 0] = theta[:, 1, 1] = scale_b
    theta[:, 0, 2] = (left_b + box_w / 2 - width / 2) / (width // 2)
    theta[:, 1, 2] = (top_b + box_h / 2 - height / 2) / (height // 2)
    return theta.float()


def sample_view(x_bchw: Tensor, theta_b23: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Cut the crop `theta_b23` out of each map: bilinear, zero padding, align_corners False, no antialiasing.

    Used with one theta on the frame and on its flow, whose resolution may differ: theta is in relative coordinates.
    Flow values are not rescaled by the crop.
    """
    grid = F.affine_grid(theta_b23, [len(x_bchw), 1, *size_hw], align_corners=False)
    return F.grid_sample(x_bchw, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def standardise_flow(flow_b2hw: Tensor, *, pixels: bool = True) -> Tensor:
    """Zero mean and unit (unbiased) deviation per image and channel over the whole map, before any crop is cut.

    With `pixels` the input is in pixels of its own resolution and is first put into half image extents (2 / width,
    2 / height), the units in which the epsilon of the division is meant.
    """
    if pixels:
        height, width = flow_b2hw.shape[-2:]
        flow_b2hw = flow_b2hw * flow_b2hw.new_tensor([2 / width, 2 / height]).view(1, 2, 1, 1)
    mean = flow_b2hw.mean(dim=(-2, -1), keepdim=True)
    std = flow_b2hw.std(dim=(-2, -1), keepdim=True)
    return (flow_b2hw - mean) / (std + STD_EPS)


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


class Distilled(NamedTuple):
    """Losses of one batch (scalars; `total` carries the gradient), the flow the student's features gave, the map."""

    flow: Tensor
    grad: Tensor
    total: Tensor
    predicted_b2hw: Tensor
    map_bD2: Tensor


def distill(
    teacher_bdhw: Tensor,
    student_bdhw: Tensor,
    u1_b2hw: Tensor,
    u2_b2hw: Tensor,
    *,
    alpha: float = 1.0,
    sigma: float = 0.1,
    flow_weight: float = 0.1,
    grad_weight: float = 1.0,
    flow_kind: FlowLoss = "l1",
) -> Distilled:
    """Fit on the teacher's view, predict in the student's, compare: total = grad_weight L_grad + flow_weight L_flow.

    Every term is a mean over images, so accumulating equal parts of a batch gives the gradient of the whole.
    """
    map_bD2 = fit_linear_map(teacher_bdhw, u1_b2hw, alpha)
    predicted = predict_flow(student_bdhw, map_bD2)
    target = u2_b2hw.float()
    flow, grad = flow_loss(predicted, target, flow_kind), gradient_loss(predicted, target, sigma)
    return Distilled(flow, grad, grad_weight * grad + flow_weight * flow, predicted, map_bD2)

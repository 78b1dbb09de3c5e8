"""The linear probe: from the features and labels of one frame to a classifier of every pixel of the others.

Features of frame 0 come in as a token grid (`low`) and, with a decoder, as a map at every pixel (`high`); a linear layer with
one column per class is fitted by full-batch Adam; applied to another frame it gives logits (FlowFeat, NeurIPS 2025, section
B.1: cross-entropy, lr 5e-3, weight decay 5e-4, 500 iterations).

The paper upsamples the token grid to every pixel and concatenates it with the decoder's map. That map of D + 128 channels is
never built here: a linear layer and bilinear upsampling commute, so the tokens' share of the logits is computed on the grid
and only the logits are upsampled, U_h L U_w^T with one small matrix per axis; the gradient goes back through the transposed
matrices. It's the same function (a test compares the two in float64), with 128 instead of 512 or 896 channels at full
resolution. The gradient of softmax cross-entropy is written out, (softmax - one_hot) / N: it costs two matrix products per
iteration and no graph.

Shape legend: c classes, d encoder channels, k decoder channels, (g, f) token grid, (h, w) pixels of the network's input,
n = h * w.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from probes.sources.features import Features, Refine

LEARNING_RATE = 5e-3
WEIGHT_DECAY = 5e-4
ITERATIONS = 500


@dataclass(frozen=True)
class Scaling:
    """Per-channel shift and scale applied before the linear layer; the identity unless standardisation is asked for."""

    mean: Tensor
    std: Tensor

    def __call__(self, map_bcyx: Tensor) -> Tensor:
        return (map_bcyx - self.mean[:, None, None]) / self.std[:, None, None]

    @staticmethod
    def of(map_bcyx: Tensor) -> Scaling:
        """Statistics of one map; a constant channel is left unscaled."""
        flat = map_bcyx.flatten(2).transpose(0, 1).flatten(1)
        std = flat.std(dim=1)
        return Scaling(flat.mean(dim=1), torch.where(std > 0, std, torch.ones_like(std)))


@dataclass(frozen=True)
class LinearProbe:
    """A fitted layer: weight_low_cd, weight_high_ck (None without a decoder), bias_c; class 0 is background."""

    weight_low_cd: Tensor
    weight_high_ck: Tensor | None
    bias_c: Tensor
    scaling_low: Scaling | None = None
    scaling_high: Scaling | None = None

    @torch.no_grad()
    def logits(self, features: Features) -> Tensor:
        """[B, C, h, w] at the resolution of the features: pixels with a decoder, the token grid without."""
        features = features.for_heads()
        low = features.low_bdgf if self.scaling_low is None else self.scaling_low(features.low_bdgf)
        logits_bcgf = torch.einsum("cd,bdgf->bcgf", self.weight_low_cd, low) + self.bias_c[:, None, None]
        if self.weight_high_ck is None:
            return logits_bcgf
        assert features.high_bkhw is not None
        high = features.high_bkhw if self.scaling_high is None else self.scaling_high(features.high_bkhw)
        size = (high.shape[-2], high.shape[-1])
        upsampled = F.interpolate(logits_bcgf, size=size, mode="bilinear", align_corners=False)
        # The decoder's map lies channels-last in memory: channels go to the end so that nothing of its size is copied.
        return upsampled + F.linear(high.movedim(1, -1), self.weight_high_ck).movedim(-1, 1)

    @torch.no_grad()
    def predict(self, features: Features, height: int, width: int, refine: Refine | None = None) -> Tensor:
        """Label maps uint8 [B, height, width]: logits resized bilinearly to that size, then the best class.

        refine: the source's own, whose probabilities are resized in place of the logits.

        Raises
        ------
        ValueError: a logit is not finite.
        """
        logits = self.logits(features)
        if not bool(torch.isfinite(logits).all()):
            raise ValueError("the network's features are not finite (NaN or infinity): is the checkpoint intact?")
        if refine is not None:
            logits = refine(logits, features)
        resized = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
        return resized.argmax(dim=1).to(torch.uint8)


def upsampling_matrix(size_out: int, size_in: int, like: Tensor) -> Tensor:
    """[size_out, size_in]: bilinear resizing of one axis (align_corners False) as a matrix, taken from torch's own."""
    unit = torch.eye(size_in, dtype=torch.float64)[None]
    rows = F.interpolate(unit, size=size_out, mode="linear", align_corners=False)[0]
    return rows.T.to(like).contiguous()


def fit(
    features: Features,
    labels_hw: Tensor,
    classes: int,
    *,
    iterations: int = ITERATIONS,
    learning_rate: float = LEARNING_RATE,
    weight_decay: float = WEIGHT_DECAY,
    standardise: bool = False,
) -> LinearProbe:
    """Fit a probe to the features of one picture, from zero weights (so there is nothing random in it).

    labels_hw: integer classes at the resolution of the features: [h, w] of the decoder's map, or the token grid.
    `standardise` gives every channel zero mean and unit variance over this picture first (the paper mentions none).
    """
    assert features.low_bdgf.shape[0] == 1, "a probe is fitted to one picture"
    features = features.for_heads()
    target = features.low_bdgf if features.high_bkhw is None else features.high_bkhw
    assert labels_hw.shape == target.shape[-2:], (labels_hw.shape, target.shape)
    low, high = features.low_bdgf, features.high_bkhw
    scaling_low = Scaling.of(low) if standardise else None
    scaling_high = Scaling.of(high) if standardise and high is not None else None
    low = low if scaling_low is None else scaling_low(low)
    if high is not None and scaling_high is not None:
        high = scaling_high(high)
    low_dg = low[0].flatten(1)
    weight_low = low_dg.new_zeros(classes, low_dg.shape[0])
    bias = low_dg.new_zeros(classes)
    weight_high = None if high is None else low_dg.new_zeros(classes, high.shape[1])
    parameters = [weight_low, bias] if weight_high is None else [weight_low, bias, weight_high]
    adam = torch.optim.Adam(parameters, lr=learning_rate, weight_decay=weight_decay)
    step = _TokenGradient(low_dg) if high is None else _PixelGradient(low, high)
    one_hot_cn = F.one_hot(labels_hw.flatten().long(), classes).T.to(low_dg)
    with torch.no_grad(), _one_thread(low_dg.device):
        for _ in range(iterations):
            for parameter, gradient in zip(parameters, step(one_hot_cn, *parameters), strict=True):
                parameter.grad = gradient
            adam.step()
    for parameter in parameters:
        parameter.grad = None
    return LinearProbe(weight_low, weight_high, bias, scaling_low, scaling_high)


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Run on one CPU thread, then on as many as before.

    An iteration is a dozen operations of microseconds to milliseconds, bound by memory. A second thread gains a third at
    480x832 and nothing below; on a machine with other work each operation waits for it, which made a fit 100 times slower.
    """
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _error(logits_cn: Tensor, one_hot_cn: Tensor) -> Tensor:
    """d(mean cross-entropy) / d(logits): (softmax - one_hot) / N."""
    return (logits_cn.softmax(dim=0) - one_hot_cn) / logits_cn.shape[1]


class _TokenGradient:
    """Gradient of the mean cross-entropy at the token grid, for the encoder alone."""

    def __init__(self, low_dg: Tensor) -> None:
        self.low_dg = low_dg

    def __call__(self, one_hot_cn: Tensor, weight_low: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        error = _error(weight_low @ self.low_dg + bias[:, None], one_hot_cn)
        return error @ self.low_dg.T, error.sum(dim=1)


class _PixelGradient:
    """Gradient of the mean cross-entropy at every pixel, for tokens upsampled to pixels plus the decoder's map."""

    def __init__(self, low_bdgf: Tensor, high_bkhw: Tensor) -> None:
        self.grid, self.size = low_bdgf.shape[-2:], high_bkhw.shape[-2:]
        self.low_dg = low_bdgf[0].flatten(1)
        self.high_kn = high_bkhw[0].flatten(1).contiguous()
        self.rows_hg = upsampling_matrix(self.size[0], self.grid[0], low_bdgf)
        self.columns_wf = upsampling_matrix(self.size[1], self.grid[1], low_bdgf)

    def __call__(self, one_hot_cn: Tensor, weight_low: Tensor, bias: Tensor, weight_high: Tensor) -> tuple[Tensor, ...]:
        low_cgf = (weight_low @ self.low_dg + bias[:, None]).unflatten(1, self.grid)
        logits_chw = self.rows_hg @ low_cgf @ self.columns_wf.T
        logits_cn = torch.addmm(logits_chw.flatten(1), weight_high, self.high_kn)
        error_cn = _error(logits_cn, one_hot_cn)
        error_cgf = self.rows_hg.T @ error_cn.unflatten(1, self.size) @ self.columns_wf
        return error_cgf.flatten(1) @ self.low_dg.T, error_cn.sum(dim=1), error_cn @ self.high_kn.T

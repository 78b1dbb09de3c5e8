"""Convolutional encoders: a frame in, a map at an eighth of its size out.

All five networks use the same plan (RAFT, Teed & Deng, ECCV 2020, figure 2): a 7×7 stem at
half size, three stages of residual blocks at 1/2, 1/4 and 1/8, a 1×1 head without activation.
They differ in width, depth, kind of block and kind of norm, which is what `EncoderPlan` says.
Parameter names are those of the official RAFT; `checkpoints.py` translates the other layouts.

Shape legend: B batch, C channels, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from pipeline.flow.networks.plans import EncoderPlan, Norm

# Instance: no affine, no running statistics, hence no keys in a checkpoint. Both use eps 1e-5.
_NORMS: dict[Norm, Callable[[int], nn.Module]] = {
    "batch": lambda channels: nn.BatchNorm2d(channels, eps=1e-5),
    "instance": lambda channels: nn.InstanceNorm2d(channels, eps=1e-5),
    "none": lambda channels: nn.Identity(),
}


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


class Block(nn.Module):
    """Residual block whose branch ends in a ReLU *before* the sum: relu(skip + relu(norm(conv(...)))).

    Plain: two 3×3 convolutions. Bottleneck: 1×1, 3×3, 1×1 at a quarter of the width. The skip is
    projected (1×1 convolution and norm, no ReLU) exactly when the block changes the resolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm, bottleneck: bool) -> None:
        super().__init__()
        thin = outputs // 4
        if bottleneck:
            sizes = [(inputs, thin, 1, 1), (thin, thin, 3, stride), (thin, outputs, 1, 1)]
        else:
            sizes = [(inputs, outputs, 3, stride), (outputs, outputs, 3, 1)]
        self.convolutions = len(sizes)
        for i, (c_in, c_out, kernel, step) in enumerate(sizes, start=1):
            self.add_module(f"conv{i}", _convolution(c_in, c_out, kernel, step))
            self.add_module(f"norm{i}", _NORMS[norm](c_out))
        projection = nn.Sequential(_convolution(inputs, outputs, 1, stride), _NORMS[norm](outputs))
        self.downsample = projection if stride != 1 else None

    def forward(self, x_bchw: Tensor) -> Tensor:
        branch = x_bchw
        for i in range(1, self.convolutions + 1):
            branch = relu(getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(branch)))
        skip = x_bchw if self.downsample is None else self.downsample(x_bchw)
        return relu(skip + branch)


class Encoder(nn.Module):
    """[B, in_channels, H, W], values in -1..1, H and W multiples of 8 → [B, out_channels, H/8, W/8]."""

    def __init__(self, plan: EncoderPlan) -> None:
        super().__init__()
        stem, *stages = plan.widths
        self.conv1 = _convolution(plan.in_channels, stem, 7, stride=2)
        self.norm1 = _NORMS[plan.norm](stem)
        inputs = stem
        for i, (width, depth) in enumerate(zip(stages, plan.depths, strict=True), start=1):
            first = Block(inputs, width, 1 if i == 1 else 2, plan.norm, plan.bottleneck)
            rest = [Block(width, width, 1, plan.norm, plan.bottleneck) for _ in range(depth - 1)]
            self.add_module(f"layer{i}", nn.Sequential(first, *rest))
            inputs = width
        self.conv2 = _convolution(inputs, plan.out_channels, 1)

    def forward(self, x_bchw: Tensor) -> Tensor:
        x_bchw = relu(self.norm1(self.conv1(x_bchw)))
        for i in (1, 2, 3):
            x_bchw = getattr(self, f"layer{i}")(x_bchw)
        return self.conv2(x_bchw)


def fold_batch_norms(net: nn.Module) -> None:
    """Merge every BatchNorm of the encoders in `net` into the convolution before it, in place, in eval mode.

    Running statistics are constants, so norm(conv(x)) is one convolution; the flow changes by
    rounding only, and the memory traffic of the norm disappears.
    """
    for module in net.modules():
        if isinstance(module, Block):
            names = [(f"conv{i}", f"norm{i}") for i in range(1, module.convolutions + 1)]
            owners: list[tuple[nn.Module, str, str]] = [(module, conv, norm) for conv, norm in names]
            if module.downsample is not None:
                owners.append((module.downsample, "0", "1"))
        elif isinstance(module, Encoder):
            owners = [(module, "conv1", "norm1")]
        else:
            continue
        for owner, conv, norm in owners:
            if isinstance(getattr(owner, norm), nn.BatchNorm2d):
                setattr(owner, conv, _folded(getattr(owner, conv), getattr(owner, norm)))
                setattr(owner, norm, nn.Identity())


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """The convolution that does conv and then norm. Computed in float64 and rounded once."""
    assert not norm.training and norm.running_mean is not None and norm.running_var is not None
    assert conv.bias is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    with torch.no_grad():
        bias = norm.bias.double() + (conv.bias.double() - norm.running_mean.double()) * scale
        conv.weight.copy_((conv.weight.double() * scale[:, None, None, None]).to(conv.weight.dtype))
        conv.bias.copy_(bias.to(conv.bias.dtype))
    return conv

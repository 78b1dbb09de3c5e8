"""SEA-RAFT (Wang, Lipson & Deng, ECCV 2024), sizes S and M, and what its uncertainty output means.

Unlike RAFT its context encoder sees both frames of a pair, so context, hidden state and the
regressed start flow belong to the pair and only the frame features are shared between neighbours.

Shape legend: F frames, P pairs, C channels, H W rows and columns, h w the same at 1/8.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.flow.networks.correlation import LEVELS
from pipeline.flow.networks.encoders import Encoder
from pipeline.flow.networks.network import MASK_CHANNELS, MASK_SCALE, FlowNetwork, State, moved
from pipeline.flow.networks.plans import EncoderPlan, SeaRaftPlan
from pipeline.flow.networks.update import MotionEncoder, RefineBlock, two_layer_head

_HIDDEN = 128
_WIDTHS = (64, 64, 128, 256)
_LARGEST_LOG_SCALE = 10.0  # of the ambiguous component, in all published configurations


class RefiningUpdate(nn.Module):
    """Windows and flow → next hidden state: two ConvNeXt-like blocks in turn, no gates."""

    def __init__(self, windows: int) -> None:
        super().__init__()
        self.encoder = MotionEncoder(windows, (256, 192), (128, 64), 126)
        self.refine = nn.ModuleList(RefineBlock(3 * _HIDDEN, _HIDDEN) for _ in range(2))

    def forward(self, hidden_pchw: Tensor, context_pchw: Tensor, corr_pchw: Tensor, flow_p2hw: Tensor) -> Tensor:
        motion_pchw = self.encoder(corr_pchw, flow_p2hw)
        for block in self.refine:
            hidden_pchw = block(torch.cat((hidden_pchw, context_pchw, motion_pchw), dim=1))
        return hidden_pchw


class SeaRaft(FlowNetwork):
    """Sizes S and M: encoders like a ResNet-18 and a ResNet-34 without their fourth stage."""

    radius = 4
    slow_axis = "x"

    def __init__(self, plan: SeaRaftPlan) -> None:
        super().__init__()
        self.default_iterations = plan.default_iterations
        self.fnet = Encoder(EncoderPlan(_WIDTHS, plan.depths, "batch", 2 * _HIDDEN))
        self.cnet = Encoder(EncoderPlan(_WIDTHS, plan.depths, "batch", 2 * _HIDDEN, in_channels=6))
        self.init_conv = nn.Conv2d(2 * _HIDDEN, 2 * _HIDDEN, 3, padding=1)
        self.update_block = RefiningUpdate(LEVELS * (2 * self.radius + 1) ** 2)
        self.flow_head = two_layer_head(_HIDDEN, 256, 6, 3)  # Δu, Δv, info 0..3
        self.upsample_weight = two_layer_head(_HIDDEN, 256, MASK_CHANNELS, 1)

    def begin(self, images_fchw: Tensor, pairs: Sequence[tuple[int, int]]) -> State:
        first = images_fchw[[a for a, _ in pairs]]
        second = images_fchw[[b for _, b in pairs]]
        both = self.init_conv(self.cnet(torch.cat((first, second), dim=1).to(self.dtype)))
        hidden_pchw, context_pchw = both[:, :_HIDDEN], both[:, _HIDDEN:]
        start_p6hw = self.flow_head(hidden_pchw).float()
        return State(hidden_pchw, start_p6hw[:, :2], context_pchw, start_p6hw[:, 2:])

    def advance(self, state: State, corr_pchw: Tensor) -> State:
        hidden_pchw = self.update_block(
            state.hidden_pchw, state.context, corr_pchw.to(self.dtype), state.flow_p2hw.to(self.dtype)
        )
        update_p6hw = self.flow_head(hidden_pchw)
        return moved(state, hidden_pchw, update_p6hw[:, :2], update_p6hw[:, 2:])

    def mask(self, state: State) -> Tensor:
        return MASK_SCALE * self.upsample_weight(state.hidden_pchw)


def mixture(info_p4hw: Tensor) -> tuple[Tensor, Tensor]:
    """Raw output (a0, a1, s0, s1) → (weight w0 of the ambiguous component, its log-scale β0 ≥ 0), each [P, H, W].

    The error along each axis is modelled as w0·Laplace(e^β0) + w1·Laplace(1 px), (w0, w1) = softmax(a0, a1),
    β0 = clip(s0, 0, 10). s1 has no effect: the ordinary component's scale is fixed at one pixel.
    """
    w0_phw = torch.softmax(info_p4hw[:, :2], dim=1)[:, 0]
    return w0_phw, info_p4hw[:, 2].clamp(0, _LARGEST_LOG_SCALE)


def heat_map(info_p4hw: Tensor) -> Tensor:
    """The official image of uncertainty: expected log-scale Σ w·β = w0·β0, [P, H, W], 0 = sure."""
    w0_phw, beta0_phw = mixture(info_p4hw)
    return w0_phw * beta0_phw


def confidence(info_p4hw: Tensor, tau_px: float = 1.0) -> Tensor:
    """Modelled chance that the error is below tau_px on both axes: [Σ w·(1 - exp(-τ/e^β))]², [P, H, W] in [0, 1].

    The square because the training loss treats the two axes as independent.
    """
    w0_phw, beta0_phw = mixture(info_p4hw)
    ambiguous = 1 - torch.exp(-tau_px * torch.exp(-beta0_phw))
    ordinary = 1 - torch.exp(torch.tensor(-tau_px, device=info_p4hw.device))
    return (w0_phw * ambiguous + (1 - w0_phw) * ordinary) ** 2

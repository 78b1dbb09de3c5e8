"""RAFT (Teed & Deng, ECCV 2020), its small variant, and SMURF (Stone et al., CVPR 2021).

SMURF is RAFT with instance norm in the context encoder and the other order of lookup offsets;
the small variant is narrower, has bottleneck blocks, one 3×3 gated pass and no mask head.
The context encoder sees the anchor only, so its output and all that the gated unit makes of it
are computed once per anchor, whatever the number of neighbours and iterations.

Shape legend: F frames, P pairs, A anchors, C channels, h w rows and columns at 1/8.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.flow.networks.correlation import LEVELS
from pipeline.flow.networks.encoders import Encoder
from pipeline.flow.networks.network import MASK_CHANNELS, MASK_SCALE, FlowNetwork, Prediction, State, moved
from pipeline.flow.networks.plans import RaftPlan
from pipeline.flow.networks.update import FlowHead, GatedUnit, GatePass, MotionEncoder, two_layer_head
from pipeline.flow.networks.upsample import STRIDE, bilinear_upsample


class RecurrentUpdate(nn.Module):
    """Windows and flow → next hidden state and Δflow; the mask head is called by itself, once."""

    def __init__(self, plan: RaftPlan) -> None:
        super().__init__()
        windows = LEVELS * (2 * plan.radius + 1) ** 2
        self.encoder = MotionEncoder(windows, plan.corr_widths, plan.flow_widths, plan.motion)
        self.gru = GatedUnit(plan.hidden, plan.cnet.out_channels - plan.hidden, plan.motion + 2, plan.kernels)
        self.flow_head = FlowHead(plan.hidden, plan.head_width)
        self.mask = two_layer_head(plan.hidden, 256, MASK_CHANNELS, 1) if plan.has_mask else None

    def forward(
        self, hidden_pchw: Tensor, passes: Sequence[GatePass], corr_pchw: Tensor, flow_p2hw: Tensor
    ) -> tuple[Tensor, Tensor]:
        motion_pchw = self.encoder(corr_pchw, flow_p2hw)
        hidden_pchw = self.gru(hidden_pchw, motion_pchw, passes)
        return hidden_pchw, self.flow_head(hidden_pchw)


class Raft(FlowNetwork):
    """One of the three plans in `table.py`. Parameter names are those of the official RAFT."""

    def __init__(self, plan: RaftPlan) -> None:
        super().__init__()
        self.plan = plan
        self.radius, self.slow_axis, self.default_iterations = plan.radius, plan.slow_axis, plan.default_iterations
        self.fnet = Encoder(plan.fnet)
        self.cnet = Encoder(plan.cnet)
        self.update_block = RecurrentUpdate(plan)

    def contexts(self, images_achw: Tensor) -> tuple[Tensor, Tensor]:
        """Anchors in -1..1 → start of the hidden state (tanh) and context (ReLU), both at 1/8."""
        both = self.cnet(images_achw.to(self.dtype))
        hidden, context = both[:, : self.plan.hidden], both[:, self.plan.hidden :]
        return torch.tanh(hidden), torch.relu(context)

    def begin(self, images_fchw: Tensor, pairs: Sequence[tuple[int, int]]) -> State:
        anchors = sorted({first for first, _ in pairs})
        anchor_of_pair = torch.tensor([anchors.index(first) for first, _ in pairs], device=images_fchw.device)
        hidden_achw, context_achw = self.contexts(images_fchw[anchors])
        passes = [one.of_pairs(anchor_of_pair) for one in self.update_block.gru.passes(context_achw)]
        rows, columns = hidden_achw.shape[2:]
        flow_p2hw = torch.zeros(len(pairs), 2, rows, columns, device=images_fchw.device)
        return State(hidden_achw[anchor_of_pair], flow_p2hw, passes)

    def advance(self, state: State, corr_pchw: Tensor) -> State:
        hidden_pchw, delta_p2hw = self.update_block(
            state.hidden_pchw, state.context, corr_pchw.to(self.dtype), state.flow_p2hw.to(self.dtype)
        )
        return moved(state, hidden_pchw, delta_p2hw)

    def mask(self, state: State) -> Tensor:
        assert self.update_block.mask is not None, "RAFT small upsamples without a mask"
        return MASK_SCALE * self.update_block.mask(state.hidden_pchw)

    def upsample(self, state: State) -> Prediction:
        if self.plan.has_mask:
            return super().upsample(state)
        return Prediction(STRIDE * bilinear_upsample(state.flow_p2hw), None)

"""The recurrent parts: motion encoder, gated units, ConvNeXt refinement, two-layer heads.

Per iteration the windows read from the correlation volume and the current flow become motion
features; a recurrent unit mixes them with the context into the hidden state; heads read the
hidden state. Sizes come from the callers (`raft.py`, `sea_raft.py`), names from official RAFT.

Shape legend: P pairs, N pairs or anchors, C channels, h w rows and columns at 1/8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu, relu


class MotionEncoder(nn.Module):
    """Correlation windows [P, corr, h, w] and flow in cells [P, 2, h, w] → motion [P, out + 2, h, w].

    corr_widths: one or two convolutions on the windows (1×1, then 3×3); flow_widths: two on the
    flow (7×7, 3×3); the flow itself is appended to the output.
    """

    def __init__(self, corr: int, corr_widths: Sequence[int], flow_widths: tuple[int, int], out: int) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(corr, corr_widths[0], 1)
        self.convc2 = nn.Conv2d(corr_widths[0], corr_widths[1], 3, padding=1) if len(corr_widths) > 1 else None
        self.convf1 = nn.Conv2d(2, flow_widths[0], 7, padding=3)
        self.convf2 = nn.Conv2d(flow_widths[0], flow_widths[1], 3, padding=1)
        self.conv = nn.Conv2d(corr_widths[-1] + flow_widths[1], out, 3, padding=1)

    def forward(self, corr_pchw: Tensor, flow_p2hw: Tensor) -> Tensor:
        corr_pchw = relu(self.convc1(corr_pchw))
        if self.convc2 is not None:
            corr_pchw = relu(self.convc2(corr_pchw))
        moved = relu(self.convf2(relu(self.convf1(flow_p2hw))))
        return torch.cat((relu(self.conv(torch.cat((corr_pchw, moved), dim=1))), flow_p2hw), dim=1)


@dataclass(frozen=True)
class GatePass:
    """One pass of a gated unit, its weights cut along the input channels [hidden | context | motion].

    context_term: [N, 3·hidden, h, w], what the context and the biases add to z, r and q. Neither the
    iteration nor the neighbour changes it, so it is computed once per anchor.
    """

    context_term: Tensor
    zr_weight: Tensor
    q_weight: Tensor
    padding: tuple[int, int]

    def of_pairs(self, anchor_of_pair: Tensor) -> GatePass:
        """The same pass with the context term repeated for every pair: anchor_of_pair [P] indexes the N anchors."""
        return GatePass(self.context_term[anchor_of_pair], self.zr_weight, self.q_weight, self.padding)


class GatedUnit(nn.Module):
    """Convolutional GRU, one pass per kernel: z, r = σ(W[h, x]), q = tanh(W[r∘h, x]), h ← (1-z)∘h + z∘q.

    kernels: suffix of the parameter names → kernel size, in the order the passes run.
    """

    def __init__(self, hidden: int, context: int, motion: int, kernels: Mapping[str, tuple[int, int]]) -> None:
        super().__init__()
        self.hidden, self.context, self.kernels = hidden, context, dict(kernels)
        for suffix, (rows, columns) in self.kernels.items():
            for gate in "zrq":
                conv = nn.Conv2d(hidden + context + motion, hidden, (rows, columns), padding=(rows // 2, columns // 2))
                self.add_module(f"conv{gate}{suffix}", conv)

    def passes(self, context_nchw: Tensor) -> list[GatePass]:
        """The passes for N contexts: everything that the iterations have in common."""
        cut = self.hidden + self.context
        made = []
        for suffix, (rows, columns) in self.kernels.items():
            gates = [getattr(self, f"conv{gate}{suffix}") for gate in "zrq"]
            weight = torch.cat([gate.weight for gate in gates])
            bias = torch.cat([gate.bias for gate in gates])
            padding = (rows // 2, columns // 2)
            term = conv2d(context_nchw, weight[:, self.hidden : cut], bias, padding=padding)
            moving = torch.cat((weight[:, : self.hidden], weight[:, cut:]), dim=1)
            made.append(GatePass(term, moving[: 2 * self.hidden], moving[2 * self.hidden :], padding))
        return made

    def forward(self, hidden_pchw: Tensor, motion_pchw: Tensor, passes: Sequence[GatePass]) -> Tensor:
        for step in passes:
            term_zr, term_q = step.context_term.split((2 * self.hidden, self.hidden), dim=1)
            inputs = torch.cat((hidden_pchw, motion_pchw), dim=1)
            z, r = torch.sigmoid(conv2d(inputs, step.zr_weight, padding=step.padding) + term_zr).chunk(2, dim=1)
            inputs = torch.cat((r * hidden_pchw, motion_pchw), dim=1)
            q = torch.tanh(conv2d(inputs, step.q_weight, padding=step.padding) + term_q)
            hidden_pchw = (1 - z) * hidden_pchw + z * q
        return hidden_pchw


class FlowHead(nn.Module):
    """Hidden state → Δflow in cells, [P, 2, h, w] (RAFT, SMURF)."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(hidden, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, hidden_pchw: Tensor) -> Tensor:
        return self.conv2(relu(self.conv1(hidden_pchw)))


def two_layer_head(hidden: int, width: int, out: int, kernel: int) -> nn.Sequential:
    """3×3, ReLU, kernel×kernel. Kernel 1 and 576 outputs make the mask head; SEA-RAFT's flow head has kernel 3."""
    return nn.Sequential(
        nn.Conv2d(hidden, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, out, kernel, padding=kernel // 2)
    )


class RefineBlock(nn.Module):
    """ConvNeXt-like block of SEA-RAFT (Wang et al., ECCV 2024): [P, inputs, h, w] → [P, out, h, w]."""

    def __init__(self, inputs: int, out: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(inputs, inputs, 7, padding=3, groups=inputs)
        self.norm = nn.LayerNorm(inputs, eps=1e-6)
        self.pwconv1 = nn.Linear(inputs, 4 * out)
        self.pwconv2 = nn.Linear(4 * out, inputs)
        self.gamma = nn.Parameter(torch.ones(inputs))
        self.final = nn.Conv2d(inputs, out, 1)

    def forward(self, x_pchw: Tensor) -> Tensor:
        y_phwc = self.norm(self.dwconv(x_pchw).permute(0, 2, 3, 1))
        y_phwc = self.gamma * self.pwconv2(gelu(self.pwconv1(y_phwc)))
        return self.final(x_pchw + y_phwc.permute(0, 3, 1, 2))

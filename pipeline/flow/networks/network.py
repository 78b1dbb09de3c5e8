"""The frame of every network of the RAFT family: frames and pairs in, flow in pixels out.

Frames come in once each; pairs say which two of them to relate. Every frame's features are
computed once however many pairs it is in, in either role; then all pairs iterate together:
look the correlation up at the current target, update, finally upsample. What differs between
the networks (encoders, context, recurrent part) is in `raft.py` and `sea_raft.py`.

Precision: modules run in the dtype of their parameters; coordinates, correlation and
upsampling are float32 in every mode.

Shape legend: F frames, P pairs, H W rows and columns, h w the same at 1/8, D feature channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pipeline.flow.networks.correlation import CorrelationPyramid
from pipeline.flow.networks.plans import SlowAxis
from pipeline.flow.networks.upsample import STRIDE, convex_upsample

MIN_SIDE_PX = 128  # the coarsest of four levels needs 2×2 cells: below, the official RAFT returns NaN without a word
MASK_SCALE = 0.25  # balances the gradients of the mask head in training; part of the weights' meaning since
MASK_CHANNELS = 9 * STRIDE * STRIDE


class Prediction(NamedTuple):
    """flow_p2hw: [P, 2, H, W] float32 pixels. info_p4hw: SEA-RAFT's raw uncertainty output, None elsewhere."""

    flow_p2hw: Tensor
    info_p4hw: Tensor | None


@dataclass(frozen=True)
class State:
    """Where P pairs stand between two iterations. flow: [P, 2, h, w] float32 in cells of 8 pixels.

    hidden: [P, C, h, w]. context: whatever the network's update wants besides (constant over the iterations).
    """

    hidden_pchw: Tensor
    flow_p2hw: Tensor
    context: Any
    info_p4hw: Tensor | None = None


class Padding(NamedTuple):
    """Rows and columns added on each side to make both sides multiples of 8."""

    left: int
    right: int
    top: int
    bottom: int

    @classmethod
    def of(cls, rows: int, columns: int) -> Padding:
        """The official rule: split on both sides, the odd one goes right and below. Raises ValueError below 128 px."""
        extra_rows, extra_columns = -rows % STRIDE, -columns % STRIDE
        if min(rows + extra_rows, columns + extra_columns) < MIN_SIDE_PX:
            raise ValueError(
                f"frames of {columns}×{rows} px are too small: the flow networks need {MIN_SIDE_PX} px on each side "
                f"(after padding to a multiple of {STRIDE}); enlarge the frames or use the estimator 'dis'"
            )
        left, top = extra_columns // 2, extra_rows // 2
        return cls(left, extra_columns - left, top, extra_rows - top)

    def add(self, x_fchw: Tensor) -> Tensor:
        """Repeat the border pixels outwards."""
        return pad(x_fchw, self, mode="replicate") if any(self) else x_fchw

    def crop(self, x_pchw: Tensor) -> Tensor:
        """Undo `add`."""
        rows, columns = x_pchw.shape[2:]
        return x_pchw[:, :, self.top : rows - self.bottom, self.left : columns - self.right]


def normalise(frames_fchw: Tensor) -> Tensor:
    """RGB 0..255 → -1..1 float32. No mean, no standard deviation: the networks were trained so."""
    return 2 * (frames_fchw.float() / 255) - 1


class FlowNetwork(nn.Module, ABC):
    """What RAFT, SMURF and SEA-RAFT share. Subclasses have `fnet`, `begin`, `advance` and `upsample`."""

    fnet: nn.Module
    radius: int
    slow_axis: SlowAxis
    default_iterations: int

    def forward(self, frames_fchw: Tensor, pairs: Sequence[tuple[int, int]], iterations: int) -> Prediction:
        """Flow from frame a to frame b for every (a, b) of `pairs`.

        frames: [F, 3, H, W] RGB, 0..255, uint8 or float, H and W at least 121 (they are padded to multiples
        of 8, 128 or more). iterations: at least 1. Raises ValueError on smaller frames.
        """
        padding = Padding.of(*frames_fchw.shape[2:])
        images_fchw = padding.add(normalise(frames_fchw))
        index = torch.tensor(pairs, device=frames_fchw.device).view(-1, 2)
        features_fdhw = self.encode(images_fchw)
        pyramid = self.correlate(features_fdhw[index[:, 0]], features_fdhw[index[:, 1]])
        state = self.begin(images_fchw, pairs)
        for _ in range(iterations):
            state = self.advance(state, pyramid.lookup(state.flow_p2hw))
        flow_p2hw, info_p4hw = self.upsample(state)
        return Prediction(padding.crop(flow_p2hw), None if info_p4hw is None else padding.crop(info_p4hw))

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the convolutions run in."""
        return next(self.parameters()).dtype

    def encode(self, images_fchw: Tensor) -> Tensor:
        """Padded images in -1..1 → features [F, D, h, w]."""
        return self.fnet(images_fchw.to(self.dtype))

    def correlate(self, first_pdhw: Tensor, second_pdhw: Tensor) -> CorrelationPyramid:
        """The volume that this network reads from."""
        return CorrelationPyramid(first_pdhw, second_pdhw, self.radius, self.slow_axis)

    @abstractmethod
    def begin(self, images_fchw: Tensor, pairs: Sequence[tuple[int, int]]) -> State:
        """Hidden state, context and start flow of every pair."""

    @abstractmethod
    def advance(self, state: State, corr_pchw: Tensor) -> State:
        """One iteration: windows read at the current flow → the next state."""

    @abstractmethod
    def mask(self, state: State) -> Tensor:
        """Logits of the convex combination, [P, 576, h, w], with the factor 0.25 applied."""

    def upsample(self, state: State) -> Prediction:
        """State on the 1/8 grid → full resolution (before cropping). Only the last iteration needs this."""
        values = [STRIDE * state.flow_p2hw] + ([] if state.info_p4hw is None else [state.info_p4hw])
        full = convex_upsample(torch.cat(values, dim=1), self.mask(state))
        return Prediction(full[:, :2], None if state.info_p4hw is None else full[:, 2:])

    def compile_parts(self) -> None:
        """Hand the encoders and the update to torch.compile, in place. Names of parameters stay."""
        for name in ("fnet", "cnet", "update_block"):
            getattr(self, name).compile()


def moved(state: State, hidden_pchw: Tensor, delta_p2hw: Tensor, info_p4hw: Tensor | None = None) -> State:
    """The state after an update. The flow is accumulated in float32 whatever the update ran in."""
    flow_p2hw = state.flow_p2hw + delta_p2hw.float()
    info_p4hw = None if info_p4hw is None else info_p4hw.float()
    return replace(state, hidden_pchw=hidden_pchw, flow_p2hw=flow_p2hw, info_p4hw=info_p4hw)

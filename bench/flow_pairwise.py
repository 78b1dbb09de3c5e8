"""The baseline of the work-sharing figures: one pair at a time, everything computed as the official code does.

Both frames are encoded for every pair, the gated unit convolves its whole input in every iteration,
and mask and upsampling are computed after every iteration (SEA-RAFT: after the start flow too). The
modules and weights are those of `pipeline.flow`, so only the amount of work differs, not its speed per operation.

Shape legend: F = 2 frames, C channels, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from pipeline.flow.networks.network import FlowNetwork, Padding, State, moved, normalise
from pipeline.flow.networks.raft import Raft


def pairwise_call(net: FlowNetwork, frames_2chw: Tensor, iterations: int) -> Tensor:
    """Flow [1, 2, H, W] in pixels from the first frame to the second."""
    padding = Padding.of(*frames_2chw.shape[2:])
    images = padding.add(normalise(frames_2chw))
    features = net.encode(images)
    pyramid = net.correlate(features[:1], features[1:])
    state = net.begin(images, [(0, 1)]) if not isinstance(net, Raft) else _begin_raft(net, images)
    full = net.upsample(state).flow_p2hw
    for _ in range(iterations):
        corr = pyramid.lookup(state.flow_p2hw)
        state = _advance_raft(net, state, corr) if isinstance(net, Raft) else net.advance(state, corr)
        full = net.upsample(state).flow_p2hw
    return padding.crop(full)


def _begin_raft(net: Raft, images: Tensor) -> State:
    hidden, context = net.contexts(images[:1])
    return State(hidden, torch.zeros(1, 2, *hidden.shape[2:], device=images.device), context)


def _advance_raft(net: Raft, state: State, corr: Tensor) -> State:
    """One iteration with whole convolutions over [hidden | context | motion]."""
    block = net.update_block
    motion = block.encoder(corr.to(net.dtype), state.flow_p2hw.to(net.dtype))
    hidden, inputs = state.hidden_pchw, torch.cat((state.context, motion), dim=1)
    for suffix, (rows, columns) in block.gru.kernels.items():
        gates = {gate: getattr(block.gru, f"conv{gate}{suffix}") for gate in "zrq"}

        def whole(gate: str, x: Tensor, gates: dict = gates, padding: tuple = (rows // 2, columns // 2)) -> Tensor:
            return conv2d(x, gates[gate].weight, gates[gate].bias, padding=padding)

        joined = torch.cat((hidden, inputs), dim=1)
        z, r = torch.sigmoid(whole("z", joined)), torch.sigmoid(whole("r", joined))
        q = torch.tanh(whole("q", torch.cat((r * hidden, inputs), dim=1)))
        hidden = (1 - z) * hidden + z * q
    return moved(state, hidden, block.flow_head(hidden))


def count_macs(run: Callable[[], object]) -> int:
    """Multiply-adds of convolutions and matrix products that `run` does. The lookup's small products are among them."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2

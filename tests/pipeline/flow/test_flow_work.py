"""Sharing work between neighbours saves what it should: multiply-adds are counted, not estimated."""

from __future__ import annotations

import pytest
import torch

from bench.flow_pairwise import count_macs, pairwise_call
from pipeline.flow.networks.build import build_network
from pipeline.flow.weights.checkpoints import load_random
from tests.pipeline.flow.flow_stand_in import ROUNDING, as_frames, clip, relative_difference

# Multiply-adds of one official call at 224×224 in 10^9, lookups left out, and the share that K = 4 neighbours of one
# anchor save by one encoding per frame, one context per anchor, one mask per pair and a split gated unit.
OFFICIAL = {
    "raft": (59.28, 0.326),
    "raft-small": (14.28, 0.196),
    "sea-raft-s": (25.38, 0.212),
    "sea-raft-m": (44.80, 0.228),
    "smurf": (39.72, 0.339),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_four_neighbours_save_the_computed_share(name: str) -> None:
    with torch.device("meta"):
        net = build_network(name).eval()
        frames = torch.zeros(5, 3, 224, 224)
    pairs = [(0, k) for k in range(1, 5)]
    together = count_macs(lambda: net(frames, pairs, net.default_iterations)) / 4e9
    apart = count_macs(lambda: pairwise_call(net, frames[:2], net.default_iterations)) / 1e9
    official, saving = OFFICIAL[name]
    assert apart == pytest.approx(official, rel=0.015), (
        "the baseline does the work of the official code (and the lookups)"
    )
    assert 1 - together / apart >= 0.9 * saving
    assert 1 - together / official >= 0.9 * saving


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_baseline_gives_the_same_flow(name: str) -> None:
    net = build_network(name)
    load_random(net, 1)
    net.eval()
    frames = as_frames(clip(3, 128, 0))
    with torch.no_grad():
        together = net(frames, [(0, 1), (0, 2)], 3).flow_p2hw
        apart = torch.cat([pairwise_call(net, frames[[0, k]], 3) for k in (1, 2)])
    assert float(together.abs().max()) > 0.1
    assert relative_difference(together.numpy(), apart.numpy()) <= ROUNDING

"""Batching, sharing, precision, memory, confidence and odd input of the networks behind the estimator protocol."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Module

from bench.flow_peak_memory import peak_bytes
from pipeline.flow.batching import PairEstimator
from pipeline.flow.consistency import round_trip_confidence
from pipeline.flow.estimator import EstimatorOptions, choose, create
from pipeline.flow.networks.memory import pair_bytes
from pipeline.flow.networks.raft import Raft
from pipeline.flow.networks.sea_raft import SeaRaft
from pipeline.flow.raft_family import RaftFamilyNetwork
from pipeline.window import Window, WindowFlow
from tests.pipeline.flow.flow_stand_in import ROUNDING, clip, moving_pair, relative_difference, window_of

NAMES = ("raft", "raft-small", "sea-raft-s", "sea-raft-m", "smurf")


def make(name: str = "raft-small", precision: str = "fp32", **extra: object) -> Made:
    """Few iterations: what is tested here does not depend on their number."""
    options = EstimatorOptions(
        weights="random:3", precision=precision, extra={"iterations": "3", **{k: str(v) for k, v in extra.items()}}
    )
    made = create(name, options)
    assert isinstance(made, PairEstimator) and isinstance(made.network, RaftFamilyNetwork)
    return Made(made, made.network)


class Made(NamedTuple):
    """An estimator and the network in it, under their own types."""

    estimator: PairEstimator
    network: RaftFamilyNetwork

    def estimate(self, windows: list[Window]) -> list[WindowFlow]:
        return self.estimator.estimate(windows)


@pytest.mark.parametrize("name", NAMES)
def test_mixed_batches_equal_pairwise_calls(name: str) -> None:
    """Windows of three videos with 3, 1 and 2 neighbours, in one batch and one pair at a time."""
    windows = [window_of(clip(k + 1, 128, 10 * k), f"video{k}") for k in (3, 1, 2)]
    together = make(name, batch_pairs=64).estimate(windows)
    apart = make(name, batch_pairs=1).estimate(windows)
    assert [flow.flow_kchw.shape for flow in together] == [(3, 2, 128, 128), (1, 2, 128, 128), (2, 2, 128, 128)]
    for one, other in zip(together, apart, strict=True):
        assert np.abs(one.flow_kchw).max() > 0.1, "a flow of nothing would agree with anything"
        assert relative_difference(one.flow_kchw, other.flow_kchw) <= ROUNDING


def test_order_of_neighbours_is_kept() -> None:
    frames = clip(3, 128, 1)
    straight = make().estimate([window_of(frames)])[0].flow_kchw
    reversed_order = make().estimate([window_of(frames[[0, 2, 1]])])[0].flow_kchw
    assert relative_difference(straight, reversed_order[::-1]) <= ROUNDING
    assert np.abs(straight - reversed_order).max() > 0.05


@pytest.mark.parametrize(("name", "contexts"), [("raft", 1), ("raft-small", 1), ("smurf", 1), ("sea-raft-s", 4)])
def test_every_frame_is_encoded_once(name: str, contexts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features once per frame; context once per anchor (SEA-RAFT: once per pair); the mask once per pair."""
    made = make(name, batch_pairs=8)
    seen: dict[str, int] = {"fnet": 0, "cnet": 0, "mask": 0}

    def count(kind: str, module: Module) -> None:
        def add(_: Module, inputs: tuple[Tensor, ...], output: object) -> None:
            seen[kind] += len(inputs[0])

        module.register_forward_hook(add)

    net = made.network.net
    assert isinstance(net, SeaRaft if name.startswith("sea") else Raft)
    count("fnet", net.fnet)
    count("cnet", net.cnet)
    head = net.upsample_weight if isinstance(net, SeaRaft) else net.update_block.mask
    if head is not None:
        count("mask", head)
    made.estimate([window_of(clip(5, 128, 0))])
    assert (seen["fnet"], seen["cnet"]) == (5, contexts)
    assert seen["mask"] == (0 if head is None else 4)


@pytest.mark.parametrize("name", ["raft-small", "sea-raft-s"])
def test_too_small_frames_are_refused_and_121_px_are_not(name: str) -> None:
    with pytest.raises(ValueError, match=r"112×150 px are too small.*128 px"):
        make(name).estimate([window_of(moving_pair(150, 112, 0))])
    flow = make(name).estimate([window_of(moving_pair(121, 127, 0))])[0].flow_kchw
    assert flow.shape == (1, 2, 121, 127) and np.isfinite(flow).all()


@pytest.mark.parametrize("name", NAMES)
def test_still_and_flat_frames_give_finite_flow(name: str) -> None:
    """No texture at all: instance norm divides by nearly nothing."""
    frames = np.stack([np.full((128, 128, 3), 7, np.uint8)] * 2)
    result = make(name).estimate([window_of(frames), window_of(moving_pair(128, 128, 0)[[0, 0]], "still")])
    assert all(np.isfinite(flow.flow_kchw).all() for flow in result)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("confidence", ["none", "round-trip"])
def test_non_finite_output_is_not_hidden(value: float, confidence: str) -> None:
    made = make(confidence=confidence)
    with torch.no_grad():
        made.network.net.get_parameter("update_block.flow_head.conv2.bias").fill_(value)
    assert not np.isfinite(made.estimate([window_of(moving_pair(128, 128, 0))])[0].flow_kchw).any()


@pytest.mark.parametrize("name", ["raft", "raft-small", "sea-raft-s"])
@pytest.mark.parametrize(("neighbours", "confidence"), [(1, "none"), (4, "none"), (1, "round-trip")])
def test_memory_per_pair_stays_below_its_bound(name: str, neighbours: int, confidence: str) -> None:
    made = make(name, confidence=confidence, batch_pairs=64)
    window = window_of(clip(neighbours + 1, 160, 0))
    used = peak_bytes(lambda: made.estimate([window]), made.network.device) / neighbours
    bound = pair_bytes(160, 160, 2 if confidence == "round-trip" else 1)
    assert 0.1 * bound < used < bound


def test_peak_bytes_counts_what_lives_at_once() -> None:
    def run() -> None:
        first = torch.zeros(1000)
        second = first + 1
        del first
        third = second.view(10, 100) + 1  # a view is no new memory
        del second, third

    assert peak_bytes(run, torch.device("cpu")) == 8000


@pytest.mark.parametrize("name", ["raft", "sea-raft-s"])
def test_bfloat16_stays_near_float32(name: str) -> None:
    window = window_of(clip(3, 128, 0))
    exact = make(name).estimate([window])[0].flow_kchw
    made = make(name, "bf16", channels_last=True)
    assert made.network.net.dtype == torch.bfloat16
    rough = made.estimate([window])[0].flow_kchw
    error = np.linalg.norm(rough - exact, axis=1).mean()
    assert 1e-5 < error < 0.05 * np.abs(exact).max()
    assert choose(name, EstimatorOptions("random:0", precision="bf16")).statement()["precision"] == "bf16"


def test_channels_last_changes_rounding_only() -> None:
    window = window_of(clip(3, 128, 0))
    exact = make("sea-raft-s").estimate([window])[0].flow_kchw
    other = make("sea-raft-s", channels_last="true").estimate([window])[0].flow_kchw
    assert relative_difference(other, exact) <= 2.4e-6, "other kernels; 8e-7 was measured"


def test_lookup_refuses_coordinates_below_float32() -> None:
    made = make()
    pyramid = made.network.net.correlate(torch.randn(1, 8, 16, 16).bfloat16(), torch.randn(1, 8, 16, 16).bfloat16())
    assert all(level.dtype == torch.float32 for level in pyramid.levels_nhw)
    with pytest.raises(AssertionError, match="float32"):
        pyramid.lookup(torch.zeros(1, 2, 16, 16, dtype=torch.bfloat16))


def test_confidences() -> None:
    window = window_of(moving_pair(128, 128, 0))
    own = make("sea-raft-s").estimate([window])[0].confidence_khw
    assert own is not None and own.shape == (1, 128, 128) and own.min() >= 0 and own.max() <= 1 and own.std() > 0
    assert make("sea-raft-s", confidence="none").estimate([window])[0].confidence_khw is None
    assert make("raft-small").estimate([window])[0].confidence_khw is None
    trip = make("raft-small", confidence="round-trip").estimate([window])[0]
    plain = make("raft-small").estimate([window])[0]
    assert trip.confidence_khw is not None and trip.confidence_khw.min() >= 0 and trip.confidence_khw.max() <= 1
    assert relative_difference(trip.flow_kchw, plain.flow_kchw) <= ROUNDING


def test_round_trip_confidence_on_a_known_shift() -> None:
    """Everything moves 5 px right and back: sure, except where the target is outside. A wrong way back: not sure."""
    forward = torch.zeros(1, 2, 20, 30)
    forward[:, 0] = 5
    sure = round_trip_confidence(forward, -forward)
    assert torch.all(sure[..., :25] == 1) and torch.all(sure[..., 25:] == 0)
    missed = round_trip_confidence(forward, torch.zeros_like(forward))[..., :25]
    assert torch.allclose(missed, torch.exp(torch.tensor(-25 / (0.01 * 25 + 0.5))))


def test_uncertainty_of_known_mixtures() -> None:
    from pipeline.flow.networks.sea_raft import confidence, heat_map

    info = torch.tensor([[0.0, 0.0, 2.0, 9.9], [-40.0, 40.0, 3.0, 0.0], [40.0, -40.0, 20.0, 0.0]]).view(3, 4, 1, 1)
    assert torch.allclose(heat_map(info).flatten(), torch.tensor([1.0, 0.0, 10.0]))
    ordinary, ambiguous = 1 - np.exp(-1), 1 - np.exp(-np.exp(-2))
    expected = [(0.5 * ordinary + 0.5 * ambiguous) ** 2, ordinary**2, (1 - np.exp(-np.exp(-10))) ** 2]
    assert np.allclose(confidence(info).flatten().numpy(), expected, rtol=1e-3)

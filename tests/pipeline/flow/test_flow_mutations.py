"""Would the parity test notice? Each plausible mistake must move the flow far beyond the tolerance."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from pipeline.flow.networks import correlation, raft, upsample
from pipeline.flow.networks import network as nets
from pipeline.flow.networks.correlation import CorrelationPyramid
from pipeline.flow.networks.network import FlowNetwork, Padding
from tests.pipeline.flow.flow_stand_in import as_frames, moving_pair, stand_in_net

NOTICED = 1e-3  # thirty times the tolerance


def other_padding(monkeypatch: pytest.MonkeyPatch, net: FlowNetwork) -> None:
    def right_and_below(cls: type[Padding], rows: int, columns: int) -> Padding:
        return Padding(0, -columns % 8, 0, -rows % 8)

    monkeypatch.setattr(Padding, "of", classmethod(right_and_below))


def zero_padding(monkeypatch: pytest.MonkeyPatch, net: FlowNetwork) -> None:
    monkeypatch.setattr(Padding, "add", lambda self, x: pad(x, tuple(self)))


def half_pixel_coordinates(monkeypatch: pytest.MonkeyPatch, net: FlowNetwork) -> None:
    right = CorrelationPyramid._window
    monkeypatch.setattr(
        CorrelationPyramid,
        "_window",
        lambda self, level, at: right(self, level, at + (0.5 / 2**level - 0.5 if level else 0.0)),
    )


def border_instead_of_zeros(monkeypatch: pytest.MonkeyPatch, net: FlowNetwork) -> None:
    def clamped(self: CorrelationPyramid, centre_n: Tensor, size: int) -> Tensor:
        position = (centre_n[:, None] + self._offsets_t).clamp(0, size - 1)
        return (1 - (position[:, :, None] - torch.arange(size)).abs()).clamp(min=0)

    monkeypatch.setattr(CorrelationPyramid, "_hats", clamped)


def unscaled_correlation(monkeypatch: pytest.MonkeyPatch, net: FlowNetwork) -> None:
    monkeypatch.setattr(correlation.math, "sqrt", lambda channels: 1.0)


def swapped_offsets(monkeypatch: pytest.MonkeyPatch, net: FlowNetwork) -> None:
    net.slow_axis = "y" if net.slow_axis == "x" else "x"


def pooling_that_keeps_the_odd_row(monkeypatch: pytest.MonkeyPatch, net: FlowNetwork) -> None:
    right = correlation.avg_pool2d
    monkeypatch.setattr(
        correlation, "avg_pool2d", lambda x, size: right(x, size, ceil_mode=True, count_include_pad=False)
    )


def other_normalisation(monkeypatch: pytest.MonkeyPatch, net: FlowNetwork) -> None:
    monkeypatch.setattr(nets, "normalise", lambda frames: frames.float() / 255 - 0.45)


def colours_reversed(monkeypatch: pytest.MonkeyPatch, net: FlowNetwork) -> None:
    right = nets.normalise
    monkeypatch.setattr(nets, "normalise", lambda frames: right(frames.flip(1)))


def corners_not_aligned(monkeypatch: pytest.MonkeyPatch, net: FlowNetwork) -> None:
    monkeypatch.setattr(
        raft, "bilinear_upsample", lambda x: interpolate(x, scale_factor=8, mode="bilinear", align_corners=False)
    )


def replicated_border_in_upsampling(monkeypatch: pytest.MonkeyPatch, net: FlowNetwork) -> None:
    monkeypatch.setattr(upsample, "pad", lambda x, sides: pad(x, sides, mode="replicate"))


def mask_without_its_factor(monkeypatch: pytest.MonkeyPatch, net: FlowNetwork) -> None:
    monkeypatch.setattr(raft, "MASK_SCALE", 1.0)


def one_iteration_fewer(monkeypatch: pytest.MonkeyPatch, net: FlowNetwork) -> None:
    monkeypatch.setattr(net, "iterations_off", -1, raising=False)


def training_mode(monkeypatch: pytest.MonkeyPatch, net: FlowNetwork) -> None:
    net.train()


EVERYWHERE = [
    other_padding, zero_padding, half_pixel_coordinates, border_instead_of_zeros, unscaled_correlation, swapped_offsets,
    pooling_that_keeps_the_odd_row, other_normalisation, colours_reversed, one_iteration_fewer,
]  # fmt: skip
CASES = [
    *(("raft-small", mutation) for mutation in [*EVERYWHERE, corners_not_aligned]),
    *(("raft", mutation) for mutation in [replicated_border_in_upsampling, mask_without_its_factor, training_mode]),
    ("smurf", swapped_offsets),
    ("sea-raft-s", swapped_offsets),
    ("sea-raft-s", one_iteration_fewer),
]


def distance(name: str, data_dir: Path, mutate: Callable[[FlowNetwork], None]) -> float:
    """Largest difference to the fixture's odd-sized flow, relative to its largest value."""
    fixture = np.load(data_dir / f"parity_flow_{name.replace('sea-raft', 'searaft').replace('-', '_')}.npz")
    meta = json.loads(str(fixture["meta"]))
    net = stand_in_net(name, meta["seed"])
    mutate(net)
    iterations = meta["cases"]["odd150x203"]["iters"] + getattr(net, "iterations_off", 0)
    with torch.no_grad():
        flow = net(as_frames(moving_pair(150, 203, 102)), [(0, 1)], iterations).flow_p2hw[0, :, ::3, ::3].numpy()
    return float(np.abs(flow - fixture["odd150x203.flow"]).max() / np.abs(fixture["odd150x203.flow"]).max())


@pytest.mark.parametrize(("name", "mutation"), CASES, ids=[f"{name}-{mutation.__name__}" for name, mutation in CASES])
def test_mistake_is_noticed(
    name: str, mutation: Callable[..., None], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert distance(name, data_dir, lambda net: mutation(monkeypatch, net)) > NOTICED


def test_without_a_mistake_the_distance_is_within_tolerance(data_dir: Path) -> None:
    assert distance("raft-small", data_dir, lambda net: None) < 3e-5

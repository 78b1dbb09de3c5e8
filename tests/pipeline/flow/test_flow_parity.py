"""The five networks against outputs of the official code, final flow and intermediate maps alike.

The reduced fixtures are in the repository; where the full ones are at hand every value is compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.flow.networks.encoders import fold_batch_norms
from pipeline.flow.networks.network import FlowNetwork, State, normalise
from pipeline.flow.networks.raft import Raft
from pipeline.flow.networks.sea_raft import heat_map
from tests.pipeline.flow.flow_stand_in import (
    FIXTURES,
    as_frames,
    fingerprint,
    moving_pair,
    reduced,
    stand_in_net,
    stand_in_state,
)

TOLERANCE = 3e-5  # of the largest expected value
Array = NDArray[np.float32]


def final_arrays(
    net: FlowNetwork, case: str, frames_fhwc: NDArray[np.uint8], iterations: int, stride: int
) -> Iterator[tuple[str, Array]]:
    """What the whole call returns."""
    flow_p2hw, info_p4hw = net(as_frames(frames_fhwc), [(0, 1)], iterations)
    yield f"{case}.flow", flow_p2hw[0, :, ::stride, ::stride].numpy()
    if info_p4hw is not None:
        yield f"{case}.info", info_p4hw[0, :, ::3, ::3].numpy()
        yield f"{case}.heatmap", heat_map(info_p4hw)[0, ::3, ::3].numpy()


def inner_arrays(net: FlowNetwork, frames_fhwc: NDArray[np.uint8], iterations: int) -> Iterator[tuple[str, Array]]:
    """The maps on the way, by the same steps that the whole call takes."""
    images = normalise(as_frames(frames_fhwc))
    features = net.encode(images)
    yield "fmap1", features[0, ::16].numpy()
    yield "fmap2", features[1, ::16].numpy()
    state = net.begin(images, [(0, 1)])
    yield "hidden0", state.hidden_pchw[0, ::16].numpy()
    context = net.contexts(images[:1])[1] if isinstance(net, Raft) else state.context
    yield "context", context[0, ::16].numpy()
    low = []
    if not isinstance(net, Raft):
        low.append(state.flow_p2hw[0])
        yield "mask0", mask_of(net, state)
        yield "flow_init", full_flow(net, state)
    pyramid = net.correlate(features[:1], features[1:])
    for i in range(1, iterations + 1):
        corr = pyramid.lookup(state.flow_p2hw)
        state = net.advance(state, corr)
        low.append(state.flow_p2hw[0])
        if i <= 2:
            yield f"corr_it{i}", corr[0, :, ::7, ::7].numpy()
        if i == 1:
            yield "flow_it1", full_flow(net, state)
            yield "mask_it1", mask_of(net, state)
    yield "mask_last", mask_of(net, state)
    yield "lowflow", torch.stack(low).numpy()


def full_flow(net: FlowNetwork, state: State) -> Array:
    return net.upsample(state).flow_p2hw[0, :, ::3, ::3].numpy()


def mask_of(net: FlowNetwork, state: State) -> Array:
    if isinstance(net, Raft) and not net.plan.has_mask:
        return np.zeros((0,), np.float32)
    return net.mask(state)[0, :, ::7, ::7].numpy()


class Answers:
    """What the networks say, computed once for equal weights, frames and iterations: the two kinds of fixture share most of their input."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], dict[str, Array]] = {}

    def of(self, name: str, seed: int, case: str, about: dict, frames_fhwc: NDArray[np.uint8]) -> dict[str, Array]:
        iterations, stride = about["iters"], about["stride"]
        key = (name, seed, case, iterations, stride, frames_fhwc.shape, frames_fhwc.tobytes())
        if key not in self._known:
            net = stand_in_net(name, seed)
            with torch.no_grad():
                found = dict(final_arrays(net, case, frames_fhwc, iterations, stride))
                if case == "syn224":
                    found.update((f"{case}.{kind}", a) for kind, a in inner_arrays(net, frames_fhwc, iterations))
            self._known[key] = found
        return self._known[key]


@pytest.fixture(scope="module")
def answers() -> Answers:
    return Answers()


def check(
    path: Path,
    name: str,
    keep: Callable[[str, Array], Array],
    frames_of: Callable[[str, dict], NDArray[np.uint8]],
    answers: Answers,
) -> None:
    """Compare every array of a fixture."""
    fixture = np.load(path)
    meta = json.loads(str(fixture["meta"]))
    ours: dict[str, Array] = {}
    for case, about in meta["cases"].items():
        ours.update(answers.of(name, meta["seed"], case, about, frames_of(case, about)))
    expected = {key: fixture[key] for key in fixture.files if key != "meta" and "image" not in key}
    assert expected, "a fixture without arrays checks nothing"
    off = {}
    for key, theirs in expected.items():
        assert keep(key, ours[key]).shape == theirs.shape, key
        off[key] = float(np.abs(keep(key, ours[key]) - theirs).max() / np.abs(theirs).max())
    assert max(off.values()) <= TOLERANCE, {key: value for key, value in off.items() if value > TOLERANCE}


def drawn_frames(case: str, about: dict) -> NDArray[np.uint8]:
    height, width = about["size"]
    return moving_pair(height, width, {"syn224": 101, "odd150x203": 102}[case])


@pytest.mark.parametrize("name", FIXTURES)
def test_stand_in_weights_are_those_of_the_fixture(name: str, data_dir: Path) -> None:
    meta = json.loads(str(np.load(data_dir / f"parity_flow_{FIXTURES[name][0]}.npz")["meta"]))
    assert fingerprint(stand_in_state(name, meta["seed"])) == meta["weights_sha256"]


@pytest.mark.parametrize("name", FIXTURES)
def test_matches_official_output(name: str, data_dir: Path, answers: Answers) -> None:
    check(data_dir / f"parity_flow_{FIXTURES[name][0]}.npz", name, reduced, drawn_frames, answers)


@pytest.mark.parametrize("name", FIXTURES)
def test_matches_official_output_in_full(name: str, shared_dir: Path, answers: Answers) -> None:
    path = shared_dir / "parity" / "flow" / f"parity_{FIXTURES[name][0]}.npz"
    if not path.is_file():
        pytest.skip(f"full fixture not found at {path}")
    fixture = np.load(path)
    check(
        path,
        name,
        lambda key, array: array,
        lambda case, about: np.stack([fixture[f"{case}.image1"], fixture[f"{case}.image2"]]),
        answers,
    )


@pytest.mark.parametrize("name", ["raft", "sea-raft-s"])
def test_folding_batch_norms_changes_rounding_only(name: str) -> None:
    frames = as_frames(moving_pair(128, 136, 3))
    net = stand_in_net(name, 5)
    with torch.no_grad():
        before = net(frames, [(0, 1)], 4).flow_p2hw
        fold_batch_norms(net)
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())
        after = net(frames, [(0, 1)], 4).flow_p2hw
    assert float((before - after).abs().max()) <= TOLERANCE * float(before.abs().max())

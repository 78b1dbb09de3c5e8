"""Batching, sharing, precision, memory and odd input of the networks behind the estimator protocol."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.flow import raft_family as engine
from pipeline.flow.consistency import round_trip_confidence
from pipeline.flow.estimator import EstimatorOptions, choose, create
from pipeline.flow.networks import memory
from pipeline.flow.networks.memory import pair_bytes, peak_bytes
from pipeline.flow.raft_family import FrameTable, NetworkEstimator
from tests.pipeline.flow.flow_stand_in import clip, moving_pair, window_of

NAMES = ("raft", "raft-small", "sea-raft-s", "sea-raft-m", "smurf")


def make(name: str = "raft-small", precision: str = "fp32", **extra: object) -> NetworkEstimator:
    """Few iterations: what is tested here does not depend on their number."""
    options = EstimatorOptions(
        weights="random:3", precision=precision, extra={"iterations": "3", **{k: str(v) for k, v in extra.items()}}
    )
    made = create(name, options)
    assert isinstance(made, NetworkEstimator)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_mixed_batches_equal_pairwise_calls(name: str) -> None:
    """Windows of three videos with 3, 1 and 2 neighbours, in one batch and one pair at a time."""
    windows = [window_of(clip(k + 1, 128, 10 * k), f"video{k}") for k in (3, 1, 2)]
    together = make(name, batch_pairs=64).estimate(windows)
    apart = make(name, batch_pairs=1).estimate(windows)
    assert [flow.flow_kchw.shape for flow in together] == [(3, 2, 128, 128), (1, 2, 128, 128), (2, 2, 128, 128)]
    for one, other in zip(together, apart, strict=True):
        assert np.abs(one.flow_kchw).max() > 0.1, "a flow of nothing would agree with anything"
        assert np.abs(one.flow_kchw - other.flow_kchw).max() <= 1e-4


def test_order_of_neighbours_is_kept() -> None:
    frames = clip(3, 128, 1)
    straight = make().estimate([window_of(frames)])[0].flow_kchw
    reversed_order = make().estimate([window_of(frames[[0, 2, 1]])])[0].flow_kchw
    assert np.abs(straight - reversed_order[::-1]).max() <= 1e-5
    assert np.abs(straight - reversed_order).max() > 0.05


def test_windows_of_different_sizes_in_one_call() -> None:
    small, large = window_of(moving_pair(128, 128, 1)), window_of(moving_pair(136, 150, 2))
    flows = make().estimate([small, large, small])
    assert [flow.flow_kchw.shape[2:] for flow in flows] == [(128, 128), (136, 150), (128, 128)]
    assert np.array_equal(flows[0].flow_kchw, flows[2].flow_kchw)


@pytest.mark.parametrize(("name", "contexts"), [("raft", 1), ("raft-small", 1), ("smurf", 1), ("sea-raft-s", 4)])
def test_every_frame_is_encoded_once(name: str, contexts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features once per frame; context once per anchor (SEA-RAFT: once per pair); the mask once per pair."""
    made = make(name, batch_pairs=8)
    seen: dict[str, int] = {"fnet": 0, "cnet": 0, "mask": 0}

    def count(kind: str) -> object:
        return lambda module, inputs, output: seen.__setitem__(kind, seen[kind] + len(inputs[0]))

    made.net.fnet.register_forward_hook(count("fnet"))
    made.net.cnet.register_forward_hook(count("cnet"))
    head = made.net.upsample_weight if name.startswith("sea") else made.net.update_block.mask
    if head is not None:
        head.register_forward_hook(count("mask"))
    made.estimate([window_of(clip(5, 128, 0))])
    assert (seen["fnet"], seen["cnet"]) == (5, contexts)
    assert seen["mask"] == (0 if head is None else 4)


def test_a_frame_in_two_windows_is_encoded_once_but_only_if_it_is_the_same_picture() -> None:
    frames = clip(2, 128, 0)
    table, window = FrameTable(), window_of(frames)
    assert table.add(window, 0, frames[0]) == table.add(window, 0, frames[0].copy()) == 0
    assert table.add(window, 0, frames[1]) == 1, "same name, other pixels: another frame"
    assert table.add(window_of(frames, "b"), 0, frames[0]) == 2


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
        made.net.update_block.flow_head.conv2.bias.fill_(value)
    assert not np.isfinite(made.estimate([window_of(moving_pair(128, 128, 0))])[0].flow_kchw).any()


def test_out_of_memory_halves_the_batch_and_reports_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = make(batch_pairs=8)
    windows = [window_of(clip(5, 128, 0)), window_of(clip(4, 128, 20), "b")]
    expected = make(batch_pairs=8).estimate(windows)
    run, tried = engine.NetworkEstimator._run, []

    def small_device(self: NetworkEstimator, windows: object, jobs: list) -> object:
        tried.append(len(jobs))
        if len(jobs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return run(self, windows, jobs)

    monkeypatch.setattr(engine.NetworkEstimator, "_run", small_device)
    with caplog.at_level(logging.WARNING):
        flows = made.estimate(windows)
    assert tried == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert (made.halvings, made.batch_pairs) == (2, 1)
    assert "do not fit the memory" in caplog.text
    for flow, other in zip(flows, expected, strict=True):
        assert np.abs(flow.flow_kchw - other.flow_kchw).max() <= 1e-4


NO_MEMORY = (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory"))


@pytest.mark.parametrize("error", NO_MEMORY)
def test_a_single_pair_that_does_not_fit_is_an_error(error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: NetworkEstimator, windows: object, jobs: list) -> object:
        raise error

    monkeypatch.setattr(engine.NetworkEstimator, "_run", never)
    with pytest.raises(RuntimeError, match="memory"):
        make().estimate([window_of(clip(5, 128, 0))])


def test_other_runtime_errors_are_not_taken_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: NetworkEstimator, windows: object, jobs: list) -> object:
        raise RuntimeError("expected scalar type Float but found Half")

    monkeypatch.setattr(engine.NetworkEstimator, "_run", broken)
    with pytest.raises(RuntimeError, match="scalar type"):
        make().estimate([window_of(clip(5, 128, 0))])


@pytest.mark.parametrize("name", ["raft", "raft-small", "sea-raft-s"])
@pytest.mark.parametrize(("neighbours", "confidence"), [(1, "none"), (4, "none"), (1, "round-trip")])
def test_memory_per_pair_stays_below_its_bound(name: str, neighbours: int, confidence: str) -> None:
    made = make(name, confidence=confidence, batch_pairs=64)
    window = window_of(clip(neighbours + 1, 160, 0))
    used = peak_bytes(lambda: made.estimate([window]), made.device) / neighbours
    bound = pair_bytes(160, 160, 2 if confidence == "round-trip" else 1)
    assert 0.1 * bound < used < bound


def test_batches_keep_to_the_memory_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(batch_pairs=64)
    sizes = []
    run = engine.NetworkEstimator._run
    monkeypatch.setattr(
        engine.NetworkEstimator, "_run", lambda self, w, jobs: (sizes.append(len(jobs)), run(self, w, jobs))[1]
    )
    monkeypatch.setattr(memory, "budget_bytes", lambda device: int(3.5 * pair_bytes(128, 128)))
    made.estimate([window_of(clip(5, 128, 0))])
    assert sizes == [3, 1]
    monkeypatch.setattr(memory, "budget_bytes", lambda device: pair_bytes(128, 128) - 1)
    with pytest.raises(ValueError, match=r"one pair of 128×128 px needs about .* make the frames smaller"):
        made.estimate([window_of(clip(2, 128, 0))])


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
    assert made.net.dtype == torch.bfloat16
    rough = made.estimate([window])[0].flow_kchw
    error = np.linalg.norm(rough - exact, axis=1).mean()
    assert 1e-5 < error < 0.05 * np.abs(exact).max()
    assert choose(name, EstimatorOptions("random:0", precision="bf16")).statement()["precision"] == "bf16"


def test_channels_last_changes_rounding_only() -> None:
    window = window_of(clip(3, 128, 0))
    exact = make("sea-raft-s").estimate([window])[0].flow_kchw
    assert np.abs(make("sea-raft-s", channels_last="true").estimate([window])[0].flow_kchw - exact).max() <= 1e-4


def test_lookup_refuses_coordinates_below_float32() -> None:
    made = make()
    pyramid = made.net.correlate(torch.randn(1, 8, 16, 16).bfloat16(), torch.randn(1, 8, 16, 16).bfloat16())
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
    assert np.abs(trip.flow_kchw - plain.flow_kchw).max() <= 1e-4


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


def test_settings_say_what_shapes_the_flow() -> None:
    assert choose("smurf", EstimatorOptions("random:3")).statement() == {
        "network": "smurf",
        "weights": "random:3",
        "iterations": 12,
        "precision": "fp32",
        "confidence": "none",
        "padding": "replicate to multiples of 8, split on both sides",
    }
    assert {name: choose(name, EstimatorOptions("random:0")).statement()["iterations"] for name in NAMES} == {
        "raft": 20, "raft-small": 20, "sea-raft-s": 4, "sea-raft-m": 4, "smurf": 12,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EstimatorOptions("random:0", extra={"iteration": "3"}), "did you mean iterations"),
        (EstimatorOptions("random:0", extra={"iterations": "many"}), "at least 1, not 'many'"),
        (EstimatorOptions("random:0", extra={"batch_pairs": "0"}), "at least 1, not '0'"),
        (EstimatorOptions("random:0", extra={"confidence": "high"}), "confidence must be one of"),
        (EstimatorOptions("random:0", extra={"confidence": "network"}), "no uncertainty output"),
        (EstimatorOptions("random:0", extra={"compile": "maybe"}), "must be true or false"),
        (EstimatorOptions("random:0", precision="fp8"), "precision must be one of"),
        (EstimatorOptions("random:0", precision="tf32"), "CUDA devices only"),
        (EstimatorOptions("random:0", device="cuda:99"), "torch sees"),
        (EstimatorOptions("random:0", device="gpu"), "no device is called"),
    ],
)
def test_bad_options_are_refused_by_name(options: EstimatorOptions, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create("raft-small", options)


def test_random_weights_are_a_function_of_the_seed() -> None:
    window = window_of(moving_pair(128, 128, 0), str(Path("x")))
    first, again, other = (
        create("raft-small", EstimatorOptions(weights, extra={"iterations": "2"})).estimate([window])[0].flow_kchw
        for weights in ("random:1", "random:1", "random:2")
    )
    assert np.array_equal(first, again) and np.abs(first - other).max() > 0.01

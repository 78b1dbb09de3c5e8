"""What the command line may say to the networks: a checked choice, its statement, refusals in one line."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.flow.estimator import EstimatorOptions, choose, create
from pipeline.flow.networks.build import build_network
from pipeline.flow.networks.network import FlowNetwork
from pipeline.flow.weights.checkpoints import load_random
from shards.files import sha256_of
from tests.pipeline.flow.flow_stand_in import moving_pair, window_of

NAMES = ("raft", "raft-small", "sea-raft-s", "sea-raft-m", "smurf")


def test_the_statement_says_what_shapes_the_flow() -> None:
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


def saved(path: Path, seed: int) -> Path:
    net = build_network("raft-small")
    load_random(net, seed)
    torch.save(net.state_dict(), path)
    return path


def test_a_choice_is_checked_and_pickled_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes are compared on the meta device: nothing is allocated for the network before it is built."""
    path = saved(tmp_path / "w.pt", 1)
    moved_to: list[str] = []

    def noted(net: FlowNetwork, *_: object, **options: object) -> FlowNetwork:
        moved_to.append(str(options.get("device")))
        return net

    monkeypatch.setattr(FlowNetwork, "to", noted)
    choice = choose("raft-small", EstimatorOptions(str(path), extra={"iterations": "2"}))
    assert moved_to == []
    again = pickle.loads(pickle.dumps(choice))
    assert again == choice and again.statement() == choice.statement()
    assert again.statement()["weights"] == f"sha256:{sha256_of(path)}"
    again.build()
    assert moved_to == ["cpu"]


def test_weights_that_change_between_choice_and_build_are_refused(tmp_path: Path) -> None:
    choice = choose("raft-small", EstimatorOptions(str(saved(tmp_path / "w.pt", 1))))
    saved(tmp_path / "w.pt", 2)
    with pytest.raises(ValueError, match=r"w\.pt has changed since"):
        choice.build()


def test_weights_of_another_network_are_refused_by_the_choice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not fit raft; it looks like raft-small"):
        choose("raft", EstimatorOptions(str(saved(tmp_path / "w.pt", 1))))

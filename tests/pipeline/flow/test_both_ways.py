"""Flow back from neighbour to anchor, from the networks: the flow of the swapped pair, computed once whoever needs it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.flow.batching import PairEstimator
from pipeline.flow.consistency import round_trip_confidence
from pipeline.flow.estimator import EstimatorOptions, choose
from pipeline.flow.raft_family import RaftFamilyNetwork
from tests.pipeline.flow.flow_stand_in import ROUNDING, clip, relative_difference, window_of


def network(name: str, confidence: str, *, reverse: bool) -> tuple[PairEstimator, list[int]]:
    """With how many pairs each call of the module takes."""
    extra = {"iterations": "2", "confidence": confidence, "batch_pairs": "2"}
    made = choose(name, EstimatorOptions("random:3", extra=extra, keep_reverse=reverse)).build()
    assert isinstance(made, PairEstimator) and isinstance(made.network, RaftFamilyNetwork)
    taken: list[int] = []
    made.network.net.register_forward_pre_hook(lambda _, given: taken.append(len(given[1])))
    return made, taken


@pytest.mark.parametrize(
    ("name", "confidence"), [("raft-small", "round-trip"), ("raft-small", "none"), ("sea-raft-s", "network")]
)
def test_the_way_back_is_the_flow_of_the_swapped_pair(name: str, confidence: str) -> None:
    frames = clip(4, 128, 1)
    both, taken = network(name, confidence, reverse=True)
    (result,) = both.estimate([window_of(frames)])
    assert taken == [4, 2], "two directions of two pairs, then of the third"
    assert result.reverse_kchw is not None and result.reverse_kchw.shape == (3, 2, 128, 128)
    plain, _ = network(name, confidence, reverse=False)
    (forward,) = plain.estimate([window_of(frames)])
    assert forward.reverse_kchw is None
    assert relative_difference(result.flow_kchw, forward.flow_kchw) <= ROUNDING
    for k in range(3):
        (back,) = plain.estimate([window_of(frames[[k + 1, 0]])])
        assert np.abs(back.flow_kchw).max() > 0.1
        assert relative_difference(result.reverse_kchw[k], back.flow_kchw[0]) <= ROUNDING
    if confidence == "none":
        assert result.confidence_khw is None
        return
    assert result.confidence_khw is not None and forward.confidence_khw is not None
    assert np.abs(result.confidence_khw - forward.confidence_khw).max() < 1e-3
    if confidence == "round-trip":
        ways = torch.from_numpy(result.flow_kchw), torch.from_numpy(result.reverse_kchw)
        assert np.array_equal(result.confidence_khw, round_trip_confidence(*ways).numpy()), (
            "of this reverse flow, no other"
        )


def test_it_costs_nothing_beside_the_round_trip() -> None:
    taken = {reverse: network("raft-small", "round-trip", reverse=reverse) for reverse in (False, True)}
    for made, _ in taken.values():
        made.estimate([window_of(clip(3, 128, 0))])
    assert taken[True][1] == taken[False][1] == [4]
    assert taken[True][0].network.pair_bytes(128, 128) == taken[False][0].network.pair_bytes(128, 128)
    alone, _ = network("raft-small", "none", reverse=False)
    assert alone.network.pair_bytes(128, 128) < taken[True][0].network.pair_bytes(128, 128)


def test_the_statement_does_not_speak_of_it() -> None:
    """It changes no flow; that a set keeps it is a setting of the set."""
    options = {keep: EstimatorOptions("random:0", keep_reverse=keep) for keep in (False, True)}
    assert choose("raft-small", options[True]).statement() == choose("raft-small", options[False]).statement()
    assert choose("dis", EstimatorOptions(keep_reverse=True)).statement() == choose("dis").statement()

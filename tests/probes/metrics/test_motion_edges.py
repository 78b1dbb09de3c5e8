"""Motion edges: found where flow jumps, whatever the readout's scale; random places score no more than their density."""

from __future__ import annotations

import numpy as np
import pytest

from probes.metrics.motion import edge_strength, motion_edge_accuracy, strongest, true_edges

SIDE = 96


def _square(left: int = 30, jump: float = 2.0) -> np.ndarray:
    flow = np.zeros((2, SIDE, SIDE))
    flow[0, 30:70, left : left + 40] = jump
    return flow


def test_strength_is_the_length_of_forward_differences() -> None:
    flow = np.zeros((2, 3, 3))
    flow[0, 0, 1], flow[1, 1, 0] = 3.0, 4.0
    assert edge_strength(flow)[0, 0] == pytest.approx(5.0)
    assert edge_strength(flow).shape == (2, 2)
    ramp = np.broadcast_to(np.arange(SIDE) * 0.1, (2, SIDE, SIDE))
    assert edge_strength(ramp) == pytest.approx(np.sqrt(2) * 0.1)


def test_edges_in_their_places_score_1_at_any_scale() -> None:
    truth = _square()
    edges = true_edges(truth)
    assert edges is not None and np.count_nonzero(edges) == 40 * 4 - 2 + 1
    for scale in (1.0, 1e-3, -5.0):
        assert motion_edge_accuracy(truth, edge_strength(scale * truth)) == 1.0
    near = motion_edge_accuracy(truth, edge_strength(np.roll(truth, 2, axis=2)))
    assert near == 1.0, "within 2 pixels (0.8 % of the diagonal)"
    far = motion_edge_accuracy(truth, edge_strength(np.roll(truth, 8, axis=2)))
    assert far is not None and 0.2 < far < 0.8, "its upper and lower sides still lie on the true ones"


def test_random_places_score_little() -> None:
    noise = np.random.default_rng(0).random((SIDE - 1, SIDE - 1))
    score = motion_edge_accuracy(_square(), noise)
    assert score is not None and score < 0.35


def test_a_flow_without_edges_is_not_scored() -> None:
    smooth = np.broadcast_to(np.linspace(-1.7, 1.7, SIDE), (2, SIDE, SIDE))
    assert true_edges(smooth) is None and motion_edge_accuracy(smooth, edge_strength(smooth)) is None
    one = np.zeros((2, SIDE, SIDE))
    one[:, 5, 5] = 3
    assert true_edges(one) is None, "a single pixel is noise"


def test_as_many_are_taken_as_there_are() -> None:
    strength = np.array([[1.0, 5.0], [5.0, 0.0]])
    assert strongest(strength, 2).tolist() == [[False, True], [True, False]]
    assert strongest(np.array([[1e-9, 5.0], [4.0, 0.0]]), 4).tolist() == [[False, True], [True, False]], (
        "the rest is flat"
    )
    assert motion_edge_accuracy(_square(), np.zeros((SIDE - 1, SIDE - 1))) == 0.0

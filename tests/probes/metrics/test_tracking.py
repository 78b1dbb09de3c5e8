"""Tracking scores: queries and deltas by hand, the ceiling of a grid in closed form, and mutants."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest

from probes.metrics import tracking
from tests.probes.mutants import Check, noticed

VISIBLE = np.array(
    [
        [0, 1, 1, 0, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 0, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 1],
    ],
    dtype=bool,
)


def check_queries_first(module: ModuleType) -> None:
    asked = module.queries(VISIBLE, "first")
    assert (asked.point_q.tolist(), asked.frame_q.tolist()) == ([0, 1, 3], [1, 0, 7])
    assert [np.flatnonzero(row).tolist() for row in asked.counted_qt] == [[2, 4, 5, 6, 7], [1, 2, 3, 4, 6, 7], []]


def check_queries_strided(module: ModuleType) -> None:
    asked = module.queries(VISIBLE, "strided")
    assert list(zip(asked.frame_q.tolist(), asked.point_q.tolist(), strict=True)) == [(0, 1), (5, 0)]
    assert [np.flatnonzero(row).tolist() for row in asked.counted_qt] == [[1, 2, 3, 4, 6, 7], [1, 2, 4, 6, 7]]
    every = module.queries(VISIBLE, "strided", stride=1)
    assert len(every.point_q) == VISIBLE.sum()


def check_positions(module: ModuleType) -> None:
    tracks = np.arange(64.0).reshape(4, 8, 2)
    assert module.queries(VISIBLE, "first").positions(tracks).tolist() == [[2, 3], [16, 17], [62, 63]]


def check_delta_by_hand(module: ModuleType) -> None:
    """Errors of 0, 1, 1.9, 5, 8.5, 16, infinite and unknown px after the query; then a frame where the points are hidden."""
    errors = np.array([(99, 0), (0, 0), (1, 0), (1.9, 0), (3, -4), (6, 6), (0, 16), (np.inf, 0), (0, np.nan), (0, 0)])
    visible = np.ones((2, 10), dtype=bool)
    visible[:, 9] = False
    tracks = np.random.default_rng(0).integers(0, 256, (2, 10, 2)).astype(np.float64)
    score = module.score_tracks(tracks + errors, tracks, module.queries(visible, "first"))
    assert score.delta == (1 / 8, 3 / 8, 3 / 8, 4 / 8, 5 / 8)  # strictly less: not 1 at 1 px, nor 16 at 16 px
    whole = np.full((1, 3, 2), 4.0)
    beside = whole + np.array([2.0, 0.0])
    asked = module.queries(np.ones((1, 3), bool), "first")
    assert module.score_tracks(beside, whole, asked).delta == (0, 0, 1, 1, 1)
    assert module.score_tracks(beside, whole, asked).average == pytest.approx(0.6)


def check_a_video_without_pairs(module: ModuleType) -> None:
    asked = module.queries(VISIBLE[2:], "first")
    assert module.score_tracks(np.zeros((1, 8, 2)), np.zeros((2, 8, 2)), asked) is None
    assert module.ceiling(np.zeros((2, 8, 2)), asked, (4, 4)) is None


def share_within(radius: float, side: float) -> float:
    """Share of a square of `side` that lies within `radius` of its centre."""
    half = side / 2
    if radius <= half:
        return math.pi * radius**2 / side**2
    if radius >= half * math.sqrt(2):
        return 1.0
    overhang = math.acos(half / radius)
    return (math.pi * radius**2 - 4 * (radius**2 * overhang - half * math.sqrt(radius**2 - half**2))) / side**2


def check_ceiling_in_closed_form(module: ModuleType) -> None:
    """Points everywhere: a cell's share within the threshold of its centre. 1.0 for pixels; 16 px cells lose 1 to 8 px."""
    steps = (np.arange(512) + 0.5) / 8  # the first 64 px: whole cells of every grid
    x, y = np.meshgrid(steps, steps)
    lattice = np.stack([x, y], axis=-1).reshape(-1, 1, 2).repeat(2, 1)
    asked = module.queries(np.ones(lattice.shape[:2], bool), "first")
    for side in (1, 4, 16, 64):
        got = module.ceiling(lattice, asked, (256 // side, 256 // side)).delta
        assert np.allclose(got, [share_within(t, side) for t in (1, 2, 4, 8, 16)], atol=0.01), side
    assert module.ceiling(lattice, asked, (256, 256)).average == 1.0


def check_cells(module: ModuleType) -> None:
    """A grid of 2 rows and 4 columns; points on the border and beyond belong to the outermost cells."""
    points = np.array([[1.0, 1.0], [65.0, 127.0], [255.0, 129.0], [256.0, 256.0], [-3.0, 300.0], [128.0, 0.0]])
    centers = module.nearest_cell_centers(points, (2, 4))
    assert centers.tolist() == [[32, 64], [96, 64], [224, 192], [224, 192], [32, 192], [160, 64]]


def check_coordinates(module: ModuleType) -> None:
    assert module.to_benchmark_size(np.array([[854.0, 480.0], [427.0, 0.5]]), 480, 854).tolist() == [
        [256.0, 256.0],
        [128.0, 0.5 * 256 / 480],
    ]


def check_mean_over_videos(module: ModuleType) -> None:
    scores = [module.TrackScores((0, 0, 0.5, 1, 1)), module.TrackScores((1, 0, 0.5, 0.5, 1))]
    scores.append(module.TrackScores((1, 0, 0.5, 0, 1)))
    assert np.allclose(module.mean_over_videos(scores).delta, (2 / 3, 0, 0.5, 0.5, 1))


CHECKS = (
    check_queries_first, check_queries_strided, check_positions, check_delta_by_hand, check_a_video_without_pairs,
    check_ceiling_in_closed_form, check_cells, check_coordinates, check_mean_over_videos,
)  # fmt: skip

MUTATIONS = [
    ("THRESHOLDS_PX = (1.0, 2.0, 4.0, 8.0, 16.0)", "THRESHOLDS_PX = (1.0, 2.0, 4.0, 8.0, 12.0)"),
    ("squared < threshold**2", "squared <= threshold**2"),
    ("squared < threshold**2", "squared < threshold"),
    ("QUERY_STRIDE = 5", "QUERY_STRIDE = 4"),
    ("SIDE_PX = 256", "SIDE_PX = 255"),
    ("(SIDE_PX / width, SIDE_PX / height)", "(SIDE_PX / height, SIDE_PX / width)"),
    ("frames[None, :] > frame_q[:, None]", "frames[None, :] >= frame_q[:, None]"),
    ("frames[None, :] > frame_q[:, None]", "frames[None, :] != frame_q[:, None] - 1"),
    ("frames[None, :] != frame_q[:, None]", "frames[None, :] > frame_q[:, None]"),
    ("eligible_qt & visible_nt[point_q]", "eligible_qt"),
    ("visible_nt & (frames % stride == 0)", "visible_nt | (frames % stride == 0)"),
    ("visible_nt & (frames % stride == 0)", "visible_nt & (frames % stride == 1)"),
    ("np.flatnonzero(visible_nt.any(axis=1))", "np.arange(len(visible_nt))"),
    ("np.sum((predicted_qt2 - truth_qt2) ** 2, axis=-1)", "np.max((predicted_qt2 - truth_qt2) ** 2, axis=-1)"),
    ("[asked.counted_qt]", ""),
    ("(index + 0.5) * side_px", "index * side_px"),
    ("np.array([grid[1], grid[0]])", "np.array([grid[0], grid[1]])"),
    ("np.floor(points * cells / side_px)", "np.round(points * cells / side_px)"),
    ("0, cells - 1)", "0, cells)"),
    ("np.mean(self.delta)", "np.median(self.delta)"),
    ("np.mean([score.delta for score in scores], axis=0)", "np.median([score.delta for score in scores][:2], axis=0)"),
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_tracking(check: Check) -> None:
    check(tracking)


@pytest.mark.parametrize(("old", "new"), MUTATIONS)
def test_mutant_is_noticed(old: str, new: str) -> None:
    assert noticed(tracking, old, new, CHECKS)


def test_bad_input_is_named() -> None:
    asked = tracking.queries(VISIBLE, "first")
    with pytest.raises(ValueError, match=r"\(4, 8, 2\) for queries of \(3, 8, 2\)"):
        tracking.score_tracks(np.zeros((4, 8, 2)), np.zeros((4, 8, 2)), asked)
    with pytest.raises(ValueError, match="no video was scored"):
        tracking.mean_over_videos([])

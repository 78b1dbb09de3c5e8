"""Point tracking scores in the form of TAP-Vid-DAVIS: delta at 1, 2, 4, 8 and 16 px of a 256 x 256 picture.

Tracks come in with where each point is visible; a mode turns them into queries (a point at a frame); a tracker answers each
query with a position in every frame, and `score_tracks` gives the share of positions nearer than each threshold (Doersch et
al., NeurIPS 2022, section 3). Only frames count where the point is visible, and the query's own frame never does:

    first      one query per point, at its first visible frame; the frames after it count
    strided    a query at every fifth frame where the point is visible; all other frames count, before and after

    delta_x = #{|predicted - truth| < x} / #{counted}, over all queries and frames of a video; <delta> is the mean of the five;
    a data set's score is the mean over its videos.

A tracker that answers with a cell of a feature grid can't be nearer than that cell's centre. `nearest_cell_centers` gives the
best such answer, and its score is the ceiling of any tracker on that grid: 1.0 from 256 x 256 cells up, far less at 16 x 16.

Coordinates are (x, y) in pixels of the 256 x 256 picture with (0, 0) its upper left corner, so the first pixel's centre is at
(0.5, 0.5). Shape legend: n points, t frames, q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

THRESHOLDS_PX = (1.0, 2.0, 4.0, 8.0, 16.0)
SIDE_PX = 256
QUERY_STRIDE = 5

Mode = Literal["first", "strided"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Queries:
    """Query i asks for point `point_q[i]`, given where it is in frame `frame_q[i]`; `counted_qt` says which frames count."""

    point_q: NDArray[np.int64]
    frame_q: NDArray[np.int64]
    counted_qt: NDArray[np.bool_]

    def positions(self, tracks_nt2: Floats) -> Floats:
        """[q, 2]: where each query's point is in its frame."""
        return tracks_nt2[self.point_q, self.frame_q]


@dataclass(frozen=True)
class TrackScores:
    """Of one video, or the mean over several: the share below each threshold, in [0, 1]."""

    delta: tuple[float, ...]

    @property
    def average(self) -> float:
        """<delta>, the number that tables show."""
        return float(np.mean(self.delta))


def to_benchmark_size(points: Floats, height: int, width: int) -> Floats:
    """Points [..., 2] of a height x width picture in the coordinates of the 256 x 256 one."""
    return points * (SIDE_PX / width, SIDE_PX / height)


def queries(visible_nt: NDArray[np.bool_], mode: Mode, stride: int = QUERY_STRIDE) -> Queries:
    """The queries of one video; points that are never visible have none."""
    frames = np.arange(visible_nt.shape[1])
    if mode == "first":
        point_q = np.flatnonzero(visible_nt.any(axis=1))
        frame_q = visible_nt[point_q].argmax(axis=1)
        eligible_qt = frames[None, :] > frame_q[:, None]
    else:
        frame_q, point_q = np.nonzero((visible_nt & (frames % stride == 0)).T)
        eligible_qt = frames[None, :] != frame_q[:, None]
    return Queries(point_q, frame_q, eligible_qt & visible_nt[point_q])


def score_tracks(predicted_qt2: Floats, tracks_nt2: Floats, asked: Queries) -> TrackScores | None:
    """delta of one video; None if no position counts. A position that isn't finite is never near.

    Raises
    ------
    ValueError: other than one position per query and frame.
    """
    truth_qt2 = tracks_nt2[asked.point_q]
    if predicted_qt2.shape != truth_qt2.shape:
        raise ValueError(f"predicted positions of {predicted_qt2.shape} for queries of {truth_qt2.shape}")
    if not asked.counted_qt.any():
        return None
    squared = np.sum((predicted_qt2 - truth_qt2) ** 2, axis=-1)[asked.counted_qt]
    return TrackScores(tuple(float(np.mean(squared < threshold**2)) for threshold in THRESHOLDS_PX))


def nearest_cell_centers(points: Floats, grid: tuple[int, int], side_px: float = SIDE_PX) -> Floats:
    """Points [..., 2] moved to the middle of the cell, of `grid` (rows, columns), that they lie in.

    A point outside the picture goes to the nearest cell.
    """
    cells = np.array([grid[1], grid[0]])
    index = np.clip(np.floor(points * cells / side_px), 0, cells - 1)
    return (index + 0.5) * side_px / cells


def ceiling(tracks_nt2: Floats, asked: Queries, grid: tuple[int, int]) -> TrackScores | None:
    """The best score that answers from a feature grid can have on these tracks; None if no position counts."""
    return score_tracks(nearest_cell_centers(tracks_nt2[asked.point_q], grid), tracks_nt2, asked)


def mean_over_videos(scores: Sequence[TrackScores]) -> TrackScores:
    """The mean of each delta, every video counting alike.

    Raises
    ------
    ValueError: no video.
    """
    if not scores:
        raise ValueError("no video was scored: no tracked point is visible in two frames")
    return TrackScores(tuple(float(share) for share in np.mean([score.delta for score in scores], axis=0)))

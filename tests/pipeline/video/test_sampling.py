"""Anchors and neighbours by time stamp, and the keyed draw."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.video.sampling import draw_anchor, nominal_interval_s, valid_anchors

OFFSETS = (-2, -1, 1, 2)


@pytest.mark.parametrize("fps", [6, 23.976, 24, 29.97, 30, 59.94, 1000])
@pytest.mark.parametrize("n", [0, 1, 4, 5, 6, 300])
def test_constant_rate_is_exactly_index_arithmetic(fps: float, n: int) -> None:
    anchors, neighbours = valid_anchors(np.arange(n) / fps, OFFSETS)
    assert anchors.tolist() == list(range(2, n - 2))
    assert np.array_equal(neighbours, anchors[:, None] + np.asarray(OFFSETS)[None, :])


@pytest.mark.parametrize("rounded_to_s", [0.001, 1 / 600, 1 / 90000])
def test_containers_that_round_time_stamps_change_nothing(rounded_to_s: float) -> None:
    times_s = np.round(np.arange(500) / 29.97 / rounded_to_s) * rounded_to_s
    anchors, neighbours = valid_anchors(times_s.astype(np.float32).astype(np.float64), OFFSETS)
    assert anchors.tolist() == list(range(2, 498))
    assert np.array_equal(neighbours - anchors[:, None], np.tile(OFFSETS, (496, 1)))


def test_forward_only_offsets_lose_frames_at_the_end_only() -> None:
    anchors, neighbours = valid_anchors(np.arange(10) / 25, (1, 4))
    assert anchors.tolist() == [0, 1, 2, 3, 4, 5]
    assert neighbours[0].tolist() == [1, 4]


def test_windows_never_cross_a_dropped_frame() -> None:
    times_s = np.delete(np.arange(20), 10) / 25.0
    anchors, neighbours = valid_anchors(times_s, OFFSETS)
    spans = np.round((times_s[neighbours] - times_s[anchors][:, None]) * 25)
    assert (spans == np.asarray(OFFSETS)).all()
    assert times_s[anchors].round(3).tolist() == [
        t / 25 for t in range(2, 18) if not {t - 2, t - 1, t, t + 1, t + 2} & {10}
    ]


def test_doubled_rate_part_is_strided() -> None:
    """50 frames per second in the second half of a video that is mostly at 25: offset 1 there means two frames on."""
    times_s = np.concatenate([np.arange(60) / 25, 60 / 25 + np.arange(20) / 50])
    anchors, neighbours = valid_anchors(times_s, OFFSETS)
    row = neighbours[anchors.tolist().index(70)]
    assert row.tolist() == [66, 68, 72, 74]


def test_equal_stamps_never_enter_one_window_twice() -> None:
    times_s = np.sort(np.concatenate([np.arange(30) / 25, np.arange(10, 20) / 25]))
    anchors, neighbours = valid_anchors(times_s, OFFSETS)
    assert len(anchors) > 20
    window = np.column_stack([anchors, neighbours])
    assert all(len(set(row)) == 5 and len(set(times_s[row])) == 5 for row in window.tolist())


def test_all_equal_stamps_yield_nothing() -> None:
    anchors, neighbours = valid_anchors(np.zeros(50), OFFSETS)
    assert anchors.shape == (0,) and neighbours.shape == (0, 4)


def test_refused_input() -> None:
    with pytest.raises(ValueError, match="decrease after frame 1"):
        valid_anchors(np.array([0.0, 0.2, 0.1, 0.3]), OFFSETS)
    with pytest.raises(ValueError, match="1 of 3 time stamps are not finite"):
        valid_anchors(np.array([0.0, np.nan, 0.1]), OFFSETS)
    for offsets in ((), (0, 1), (1, 1)):
        with pytest.raises(ValueError, match="offsets must be distinct non-zero"):
            valid_anchors(np.arange(9.0), offsets)


def brute_force(times_s: list[float], offsets: tuple[int, ...]) -> dict[int, list[int]]:
    interval = nominal_interval_s(np.asarray(times_s))
    found: dict[int, list[int]] = {}
    for a, t in enumerate(times_s):
        chosen = []
        for k in offsets:
            target = t + k * interval
            best = min(range(len(times_s)), key=lambda i: (abs(times_s[i] - target), times_s[i], i))
            if abs(times_s[best] - target) <= interval / 2 and (best > a) == (k > 0) and best != a:
                chosen.append(best)
        if interval and len(set(chosen)) == len(offsets):
            found[a] = chosen
    return found


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 90), min_size=1, max_size=40),
    st.lists(st.integers(-4, 4).filter(bool), min_size=1, max_size=5, unique=True),
)
def test_equals_the_definition_on_variable_rates(steps: list[int], offsets: list[int]) -> None:
    """Time stamps in 1/64 s: distances are exact, so ties are ties for both."""
    times_s = (np.cumsum(steps) / 64.0).tolist()
    anchors, neighbours = valid_anchors(np.asarray(times_s), tuple(offsets))
    got = {int(a): row.tolist() for a, row in zip(anchors, neighbours, strict=True)}
    assert got == brute_force(times_s, tuple(offsets))


def test_a_hundred_thousand_frames() -> None:
    times_s = np.cumsum(np.random.default_rng(0).uniform(0.03, 0.05, 100_000))
    anchors, neighbours = valid_anchors(times_s, OFFSETS)
    assert len(anchors) > 80_000 and neighbours.shape == (len(anchors), 4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**63), st.text(max_size=30), st.integers(1, 200))
def test_passes_take_every_anchor_once_and_then_start_anew(seed: int, video_id: str, n_valid: int) -> None:
    for cycle in (0, 1):
        drawn = [draw_anchor(seed, video_id, cycle * n_valid + i, n_valid) for i in range(n_valid)]
        assert sorted(drawn) == list(range(n_valid))


def test_permutations_differ_between_cycles_seeds_and_videos() -> None:
    def order(seed: int, video_id: str, cycle: int) -> tuple[int, ...]:
        return tuple(draw_anchor(seed, video_id, cycle * 100 + i, 100) for i in range(100))

    orders = {order(seed, video, cycle) for seed in (0, 1, 11) for video in ("a", "b", "1|a") for cycle in (0, 1, 2)}
    assert len(orders) == 27


def test_first_draw_is_uniform() -> None:
    counts = Counter(draw_anchor(0, f"video {i}", 0, 7) for i in range(7000))
    assert len(counts) == 7
    chi_square = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert chi_square < 22.5  # 6 degrees of freedom, p = 0.001


def test_successive_draws_are_independent() -> None:
    pairs = Counter((draw_anchor(3, f"v{i}", 0, 4), draw_anchor(3, f"v{i}", 1, 4)) for i in range(6000))
    assert len(pairs) == 12
    assert sum((count - 500) ** 2 / 500 for count in pairs.values()) < 31.3  # 11 degrees of freedom, p = 0.001


def test_draws_are_pinned() -> None:
    """These numbers decide what a shard set holds: a change here makes every existing set impossible to extend."""
    assert [draw_anchor(0, "kinetics/train/archery/abc", p, 296) for p in range(8)] == PINNED_296
    assert [draw_anchor(7, "ünïcode", p, 5) for p in range(10)] == PINNED_5
    assert draw_anchor(0, "long", 123_456, 10**9) == PINNED_BIG


def test_other_processes_agree() -> None:
    script = (
        "from pipeline.video.sampling import draw_anchor; print([draw_anchor(5, 'x/y', p, 1000) for p in range(20)])"
    )
    here = str([draw_anchor(5, "x/y", p, 1000) for p in range(20)])
    for hash_seed in ("0", "1234"):
        root = str(Path(__file__).resolve().parents[3])
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": root}
        assert (
            subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True).stdout.strip()
            == here
        )


def test_nothing_to_draw_from() -> None:
    with pytest.raises(ValueError, match="no valid anchor"):
        draw_anchor(0, "v", 0, 0)
    with pytest.raises(ValueError, match="pass_index"):
        draw_anchor(0, "v", -1, 5)


PINNED_296 = [133, 31, 293, 148, 61, 161, 178, 243]
PINNED_5 = [2, 3, 0, 4, 1, 3, 2, 1, 4, 0]
PINNED_BIG = 14733296

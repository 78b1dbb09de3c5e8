"""J, F and their statistics: against stored values of the benchmark's definitions, and against loops over pixels."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from probes.metrics.bit_masks import BitLayout
from probes.metrics.davis import (
    boundary_accuracy,
    boundary_map,
    region_similarity,
    score_frame,
    summarise,
    tolerance_px,
)


@pytest.fixture(scope="module")
def parity(data_dir: Path) -> dict[str, np.ndarray]:
    with np.load(data_dir / "parity_davis_metrics.npz") as archive:
        return {name: archive[name] for name in archive.files}


def _meta(parity: dict[str, np.ndarray]) -> dict:
    return json.loads(str(parity["meta"]))


def _unpack(bits: np.ndarray, n: int, height: int, width: int) -> np.ndarray:
    return np.unpackbits(bits, count=n * height * width).reshape(n, height, width).astype(bool)


@pytest.mark.parametrize("group", [0, 1])
def test_parity_with_the_benchmark_per_mask(parity: dict[str, np.ndarray], group: int) -> None:
    size = _meta(parity)["sizes"][group]
    n, height, width = size["n"], size["H"], size["W"]
    truth, predicted, edges = (_unpack(parity[f"{name}{group}"], n, height, width) for name in ("gt", "pred", "bmap"))
    assert tolerance_px(height, width) == size["bound_pix"]
    for i in range(n):
        np.testing.assert_array_equal(boundary_map(truth[i]), edges[i])
        assert abs(region_similarity(truth[i], predicted[i]) - parity[f"J{group}"][i]) < 1e-9
        assert abs(boundary_accuracy(truth[i], predicted[i]) - parity[f"F{group}"][i]) < 1e-9


def test_parity_with_the_benchmark_over_a_sequence(parity: dict[str, np.ndarray]) -> None:
    truth, predicted, expected = parity["seq_gt"], parity["seq_pred"], parity["seq_M_R_D"]
    scores = np.stack([score_frame(truth[t], predicted[t], 3) for t in range(1, len(truth) - 1)], axis=-1)
    for metric in range(2):
        for label in range(3):
            got = summarise(scores[metric, label])
            np.testing.assert_allclose([got.mean, got.recall, got.decay], expected[metric, :, label], atol=1e-9)


def test_parity_of_statistics_by_length(parity: dict[str, np.ndarray]) -> None:
    meta = _meta(parity)
    for row, n in enumerate(meta["lengths"]):
        got = summarise(np.random.default_rng(meta["seed"] + 130 + n).random(n))
        expected = parity["db_stats"][row]
        # n = 300 holds what the benchmark's uint8 overflow yields; only its mean and recall mean anything.
        compare = slice(0, 2) if n > 256 else slice(0, 3)
        np.testing.assert_allclose([got.mean, got.recall, got.decay][compare], expected[compare], atol=1e-9)


def test_decay_beyond_256_frames() -> None:
    series = np.linspace(1.0, 0.0, 301)
    assert summarise(series).decay == pytest.approx(0.75)


def _boundary_by_loops(mask: np.ndarray) -> np.ndarray:
    height, width = mask.shape
    edge = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            for ny, nx in ((y, x + 1), (y + 1, x), (y + 1, x + 1)):
                if ny < height and nx < width:
                    edge[y, x] |= mask[y, x] != mask[ny, nx]
    return edge


def _f_by_loops(truth: np.ndarray, predicted: np.ndarray, share: float) -> float:
    radius = math.ceil(share * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))
    a = [tuple(p) for p in np.argwhere(_boundary_by_loops(truth))]
    b = [tuple(p) for p in np.argwhere(_boundary_by_loops(predicted))]
    if not a or not b:
        return 1.0 if not a and not b else 0.0

    def share_near(points: list, others: list) -> float:
        near = [any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in others) for y, x in points]
        return sum(near) / len(near)

    precision, recall = share_near(b, a), share_near(a, b)
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("seed", range(12))
def test_against_loops_over_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(5, 26, size=2))
    # Sparse, half and dense noise: the radius must matter, so it is taken larger than the benchmark's here.
    density = rng.choice([0.02, 0.5, 0.98])
    truth, predicted = rng.random((2, height, width)) < density
    share = float(rng.choice([0.008, 0.05, 0.12]))
    assert boundary_accuracy(truth, predicted, share) == pytest.approx(_f_by_loops(truth, predicted, share), abs=1e-12)
    union = sum(bool(a or b) for a, b in zip(truth.flat, predicted.flat, strict=True))
    both = sum(bool(a and b) for a, b in zip(truth.flat, predicted.flat, strict=True))
    assert region_similarity(truth, predicted) == (both / union if union else 1.0)


@pytest.mark.parametrize("radius", [1, 2, 5, 8, 13, 20])
def test_dilation_is_by_the_disk_bit_for_bit(radius: int) -> None:
    rng = np.random.default_rng(radius)
    points = rng.random((90, 140)) < 0.002
    points[40, 70] = points[0, 0] = points[89, 139] = points[50, 0] = points[50, 139] = True
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (y * y + x * x <= radius * radius).astype(np.uint8)
    dilated = cv2.dilate(points.astype(np.uint8), disk, borderType=cv2.BORDER_CONSTANT, borderValue=0).astype(bool)
    layout = BitLayout(90, 140, radius)
    inside = layout.dilated(layout.bits(points)) & layout.bits(np.ones((90, 140), bool))
    np.testing.assert_array_equal(layout.mask(inside), dilated)


@pytest.mark.parametrize("seed", range(8))
def test_a_frames_scores_are_those_of_whole_masks(seed: int) -> None:
    """Objects are scored in the box around them; some touch a border of the frame, some are in one label map only."""
    rng = np.random.default_rng(seed)
    maps = np.zeros((2, 60, 75), np.uint8)
    for label in range(1, 5):
        for one in maps:
            y, x = rng.integers(0, 50, 2)
            if rng.random() < 0.8:
                one[y : y + rng.integers(3, 30), x : x + rng.integers(3, 30)] = label
    expected = [
        [score(maps[0] == label, maps[1] == label) for label in range(1, 5)]
        for score in (region_similarity, boundary_accuracy)
    ]
    np.testing.assert_array_equal(score_frame(maps[0], maps[1], 4), expected)


def test_special_masks() -> None:
    empty, full = np.zeros((20, 30), bool), np.ones((20, 30), bool)
    some = empty.copy()
    some[4:9, 5:11] = True
    assert region_similarity(empty, empty) == boundary_accuracy(empty, empty) == 1.0
    assert region_similarity(some, empty) == boundary_accuracy(some, empty) == boundary_accuracy(empty, some) == 0.0
    assert region_similarity(full, empty) == 0.0
    assert boundary_accuracy(full, empty) == 1.0, "a mask over the whole frame has an empty boundary"
    assert region_similarity(some, some) == boundary_accuracy(some, some) == 1.0


def test_a_missing_object_counts_as_empty() -> None:
    truth = np.zeros((12, 12), np.uint8)
    truth[2:6, 2:6], truth[7:10, 7:10] = 1, 2
    predicted = np.where(truth == 1, 1, 0).astype(np.uint8)
    np.testing.assert_array_equal(score_frame(truth, predicted, 2), [[1.0, 0.0], [1.0, 0.0]])


def test_no_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="at least three"):
        summarise(np.empty(0))

"""Enlarging rows: every level as Pillow has it, by either way of computing it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.video import enlarging
from pipeline.video.enlarging import enlarge_rows


def rows_of(count: int, content: str) -> NDArray[np.uint8]:
    """[count, 257]."""
    generator = np.random.default_rng(count)
    if content == "extremes":
        return generator.integers(0, 2, (count, 257), dtype=np.uint8) * np.uint8(255)
    rows = generator.integers(0, 256, (count, 257), dtype=np.uint8)
    if content == "close":  # small steps, where sums just between two levels are frequent
        rows = (128 + rows % 16).astype(np.uint8)
    return rows


def enlarged(rows_nm: NDArray[np.uint8], size: int, first: int, count: int) -> NDArray[np.uint8]:
    made = np.empty((count, rows_nm.shape[1]), np.uint8)
    enlarge_rows(rows_nm, size, first, made)
    return made


@pytest.mark.parametrize("content", ["any", "close", "extremes"])
@pytest.mark.parametrize(
    ("before", "after"),
    [(256, 448), (340, 595), (240, 448), (320, 597), (360, 448), (640, 796), (144, 448), (112, 448), (224, 448)]
    + [(16, 448), (17, 448), (447, 448), (448, 448), (2, 3), (64, 7168)],
)
def test_rows_are_pillows(before: int, after: int, content: str) -> None:
    rows_nm = rows_of(before, content)
    expected = np.asarray(Image.fromarray(rows_nm).resize((257, after), Image.Resampling.BILINEAR))
    for first, count in ((0, after), (after // 3, max(1, after // 2))):
        assert np.array_equal(enlarged(rows_nm, after, first, count), expected[first : first + count])
        plan = enlarging._plan(before, after, first, count)
        sums = np.empty((count, 257), np.uint8)
        enlarging._sums(rows_nm, plan, sums)
        assert np.array_equal(sums, expected[first : first + count])


@pytest.mark.parametrize(("before", "after", "few_weights"), [(256, 448, True), (240, 448, True), (320, 597, False)])
def test_sizes_with_few_weights_take_the_short_way(before: int, after: int, few_weights: bool) -> None:
    assert (enlarging._plan(before, after, 0, after).phases is not None) == few_weights


def test_an_opencv_that_rounds_differently_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    rows_nm = rows_of(256, "any")
    expected = enlarged(rows_nm, 448, 0, 448)
    add = cv2.addWeighted

    def down(above: NDArray[np.uint8], x: float, below: NDArray[np.uint8], y: float, z: float) -> NDArray[np.uint8]:
        return np.asarray(add(above, x, below, y, z - 0.3))

    monkeypatch.setattr(enlarging.cv2, "addWeighted", down)
    enlarging._plan.cache_clear()
    try:
        assert enlarging._plan(256, 448, 0, 448).phases is None
        assert np.array_equal(enlarged(rows_nm, 448, 0, 448), expected)
    finally:
        enlarging._plan.cache_clear()

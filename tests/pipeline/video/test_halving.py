"""Halving and cropping between the axes: to the bit what Pillow makes of whole frames."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.video import halving
from pipeline.video.geometry import centre_square, crop_box, resized_size, shrink_square
from pipeline.video.halving import halved


@pytest.mark.parametrize("side", [4, 6, 8, 64, 114, 116, 230, 448])
@pytest.mark.parametrize("content", ["noise", "steps", "white"])
def test_halved_is_pillows_bilinear(side: int, content: str) -> None:
    generator = np.random.default_rng(side)
    square_hwc = generator.integers(0, 256, (side, side, 3), np.uint8)
    if content == "steps":
        square_hwc = (square_hwc > 127).astype(np.uint8) * np.uint8(255)
    if content == "white":
        square_hwc = np.full_like(square_hwc, 255)
    expected = Image.fromarray(square_hwc).resize((side // 2, side // 2), Image.Resampling.BILINEAR)
    assert np.array_equal(halved(square_hwc), np.asarray(expected))
    assert np.array_equal(shrink_square(square_hwc, side // 2), np.asarray(expected))


def test_every_sum_at_the_border_is_pillows() -> None:
    """Columns of 6 rows whose first three, and last three from below, are all of (0 ... 510, 0 ... 255) as a + b and c."""
    near, third = (array.ravel() for array in np.meshgrid(np.arange(511), np.arange(256)))
    a = (near + 1) // 2
    rows_nm = np.stack([a, near - a, third, third, near - a, a]).astype(np.uint8)
    expected = np.asarray(Image.fromarray(rows_nm).resize((rows_nm.shape[1], 3), Image.Resampling.BILINEAR))
    made = np.empty((3, rows_nm.shape[1]), np.uint8)
    halving._halve_rows(rows_nm, made)
    assert np.array_equal(made, expected)


def test_what_was_made_is_not_overwritten_by_what_is_made_next() -> None:
    generator = np.random.default_rng(1)
    frames = [
        generator.integers(0, 256, (*size, 3), np.uint8) for size in ((256, 340), (340, 256), (448, 600), (600, 448))
    ]
    images = [centre_square(frame_hwc, 448) for frame_hwc in frames]
    squares = [halved(image_hwc) for image_hwc in images]
    for frame_hwc, image_hwc, square_hwc in zip(frames, images, squares, strict=True):
        assert np.array_equal(image_hwc, centre_square(frame_hwc, 448))
        assert np.array_equal(square_hwc, halved(image_hwc))
    kept = [*images, *squares]
    assert not any(np.shares_memory(x, y) for i, x in enumerate(kept) for y in kept[:i])


@pytest.mark.parametrize(
    "width, height", [(340, 256), (256, 340), (448, 448), (448, 600), (1280, 720), (300, 448), (17, 200)]
)
def test_cropping_between_the_axes_changes_nothing(width: int, height: int) -> None:
    frame_hwc = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    target = resized_size(width, height, 448)
    whole = Image.fromarray(frame_hwc).resize(target, Image.Resampling.BILINEAR).crop(crop_box(*target, 448))
    assert np.array_equal(centre_square(frame_hwc, 448), np.asarray(whole))

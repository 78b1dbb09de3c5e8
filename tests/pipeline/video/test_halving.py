"""Halving and cropping between the axes: to the bit what Pillow makes of whole frames."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.video.geometry import centre_square, crop_box, resized_size, shrink_square
from pipeline.video.halving import halved


@pytest.mark.parametrize("side", [4, 6, 64, 448])
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


@pytest.mark.parametrize(
    "width, height", [(340, 256), (256, 340), (448, 448), (448, 600), (1280, 720), (300, 448), (17, 200)]
)
def test_cropping_between_the_axes_changes_nothing(width: int, height: int) -> None:
    frame_hwc = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    target = resized_size(width, height, 448)
    whole = Image.fromarray(frame_hwc).resize(target, Image.Resampling.BILINEAR).crop(crop_box(*target, 448))
    assert np.array_equal(centre_square(frame_hwc, 448), np.asarray(whole))

"""Resize, crop and the two-step flow square."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.video.geometry import FrameSizeError, centre_square, check_size, crop_box, resized_size, shrink_square


@pytest.mark.parametrize(
    ("size", "resized", "left_top"),
    [
        ((854, 480), (797, 448), (174, 0)),  # 349 / 2 = 174.5 rounds to the even 174
        ((480, 854), (448, 797), (0, 174)),
        ((1280, 720), (796, 448), (174, 0)),
        ((1920, 1080), (796, 448), (174, 0)),
        ((640, 360), (796, 448), (174, 0)),
        ((320, 240), (597, 448), (74, 0)),  # 149 / 2 = 74.5 -> 74
        ((451, 448), (451, 448), (2, 0)),  # 3 / 2 = 1.5 -> 2
        ((512, 512), (448, 448), (0, 0)),
        ((448, 448), (448, 448), (0, 0)),
    ],
)
def test_sizes(size: tuple[int, int], resized: tuple[int, int], left_top: tuple[int, int]) -> None:
    assert resized_size(*size, 448) == resized
    left, top, right, bottom = crop_box(*resized, 448)
    assert (left, top) == left_top and (right - left, bottom - top) == (448, 448)


@pytest.mark.parametrize(
    "size", [(854, 480), (240, 320), (340, 256), (1280, 720), (512, 512), (448, 600), (600, 448), (17, 33)]
)
def test_square_is_pillows_resize_then_crop(size: tuple[int, int]) -> None:
    width, height = size
    frame_hwc = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    short = min(size)
    whole = Image.fromarray(frame_hwc).resize(
        (448 if width == short else 448 * width // height, 448 if height == short else 448 * height // width),
        Image.Resampling.BILINEAR,
    )
    if width == height:
        whole = Image.fromarray(frame_hwc).resize((448, 448), Image.Resampling.BILINEAR)
    left, top = round((whole.width - 448) / 2), round((whole.height - 448) / 2)
    expected = np.asarray(whole)[top : top + 448, left : left + 448]
    square_hwc = centre_square(frame_hwc, 448)
    assert square_hwc.shape == (448, 448, 3) and square_hwc.dtype == np.uint8
    assert np.array_equal(square_hwc, expected)


def test_shrinking_is_antialiased_and_unbiased() -> None:
    """Alternating columns vanish under an antialiased filter; sampling bilinearly without one would keep them or pick one."""
    stripes = np.zeros((448, 448, 3), np.uint8)
    stripes[:, ::2] = 200
    inner = shrink_square(stripes, 224)[4:-4, 4:-4].astype(int)
    assert abs(inner - 100).max() <= 1


def test_flow_square_is_made_from_the_image_square() -> None:
    frame_hwc = np.random.default_rng(0).integers(0, 256, (480, 854, 3), dtype=np.uint8)
    square_hwc = centre_square(frame_hwc, 448)
    expected = np.asarray(Image.fromarray(square_hwc).resize((224, 224), Image.Resampling.BILINEAR))
    assert np.array_equal(shrink_square(square_hwc, 224), expected)
    assert not np.array_equal(expected, centre_square(frame_hwc, 224))
    assert shrink_square(square_hwc, 448) is square_hwc


def test_a_centred_object_stays_centred() -> None:
    frame_hwc = np.zeros((300, 500, 3), np.uint8)
    frame_hwc[100:200, 200:300] = 255
    square = centre_square(frame_hwc, 448)[..., 0].astype(float)
    rows, columns = np.indices(square.shape)
    assert abs((rows * square).sum() / square.sum() - 223.5) < 0.01
    assert abs((columns * square).sum() / square.sum() - 223.5) < 0.6  # 746 columns: the half pixel of an odd margin


@pytest.mark.parametrize("size", [(1, 1), (15, 400), (400, 15), (4, 4), (2, 2), (16, 257), (5000, 300)])
def test_refused_sizes(size: tuple[int, int]) -> None:
    with pytest.raises(FrameSizeError, match=f"{size[0]}x{size[1]} px"):
        check_size(*size)
    with pytest.raises(FrameSizeError):
        centre_square(np.zeros((size[1], size[0], 3), np.uint8), 448)


def test_smallest_accepted_size() -> None:
    assert centre_square(np.zeros((16, 16, 3), np.uint8), 448).shape == (448, 448, 3)

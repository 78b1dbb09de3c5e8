"""Random homographies: the second view shows at every point what the first shows where the matrix says."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from probes.data.homographies import Homography, fine_picture, first_view, random_homography, second_view

SIZE = 96, 128


def coordinate_picture(scale: int = 1) -> Image.Image:
    """Red is x / width, green is y / height, at pixel centres."""
    height, width = SIZE[0] * scale, SIZE[1] * scale
    y, x = np.mgrid[0:height, 0:width] + 0.5
    pixels = np.stack([255 * x / width, 255 * y / height, np.full_like(x, 128)], axis=-1)
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


WAVES = 2 * np.pi / np.array([32.0, 24.0])


def wave_levels(points_n2: np.ndarray) -> np.ndarray:
    """Two channels that wave along x and y, by place in a view of `SIZE`."""
    return 128 + 100 * np.cos(points_n2 * WAVES)


ZOOM = Homography(np.diag([0.25, 0.25, 1.0]))


@pytest.mark.parametrize("homography", [random_homography(np.random.default_rng(3), SIZE, 0.25), ZOOM])
@pytest.mark.parametrize("scale", [2, 5])
def test_views_agree_to_a_tenth_of_a_pixel(scale: int, homography: Homography) -> None:
    y, x = (np.mgrid[0 : scale * SIZE[0], 0 : scale * SIZE[1]] + 0.5) / scale
    levels = wave_levels(np.stack([x, y], axis=-1))
    picture = Image.fromarray(np.rint(np.concatenate([levels, levels[..., :1]], axis=-1)).astype(np.uint8))
    second = np.asarray(second_view(fine_picture(picture, SIZE), homography), dtype=np.float64)
    y, x = np.mgrid[8:88, 8:120]
    here = np.stack([x.ravel(), y.ravel()], axis=1) + 0.5
    seen = second[y.ravel(), x.ravel(), :2]
    true = homography.to_first(here)
    assert np.abs(seen - wave_levels(true)).mean() < 1.0, "a tenth of a pixel is 1.3 levels"
    for shift in ((0.2, 0), (0, 0.2), (-0.2, 0), (0, -0.2)):
        assert np.abs(seen - wave_levels(true + shift)).mean() > 1.0, "the check notices a fifth of a pixel"


def test_no_warp_is_the_picture_itself() -> None:
    fine = fine_picture(coordinate_picture(), SIZE)
    homography = random_homography(np.random.default_rng(0), SIZE, 0.0)
    np.testing.assert_allclose(homography.matrix, np.eye(3), atol=1e-6)
    assert np.array_equal(np.asarray(second_view(fine, homography)), np.asarray(first_view(fine)))


def test_the_second_view_lies_inside_the_first() -> None:
    rng = np.random.default_rng(1)
    corners = np.array([[0, 0], [128, 0], [128, 96], [0, 96]], dtype=np.float64)
    for _ in range(50):
        moved = random_homography(rng, SIZE, 0.4).to_first(corners)
        assert (moved >= -1e-3).all() and (moved <= np.array([128, 96]) + 1e-3).all()
        assert (np.abs(moved - corners) <= 0.4 * np.array([128, 96]) + 1e-3).all()


def test_points_go_through_the_matrix() -> None:
    matrix = np.array([[2.0, 0, 4], [0, 3, -1], [0, 0.5, 1]])
    np.testing.assert_allclose(Homography(matrix).to_first(np.array([[1.0, 2.0]])), [[3.0, 2.5]])

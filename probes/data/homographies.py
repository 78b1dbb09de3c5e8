"""Two views of one flat picture whose correspondence is known exactly: the picture, and a random homography of it.

A picture comes in; both views at one size, and the map between their coordinates, go out. The second view is what a camera
would see that looks at a tilted quadrilateral inside the picture: its corners are the picture's, each drawn inwards by up to
`share` of the width and height. So the second view shows nothing that the first does not, and needs no invented border.

Coordinates are (x, y) in pixels of a view, its upper left corner at (0, 0), so the first pixel's centre is at (0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]
FINER = 2
"""Views are cut from a picture so many times finer and reduced with antialiasing, so that the second is as sharp as the first."""


@dataclass(frozen=True)
class Homography:
    """matrix: homogeneous points of the second view → points of the first."""

    matrix: Floats

    def to_first(self, points_n2: Floats) -> Floats:
        homogeneous = np.concatenate([points_n2, np.ones((len(points_n2), 1))], axis=1) @ self.matrix.T
        return homogeneous[:, :2] / homogeneous[:, 2:]


def random_homography(rng: np.random.Generator, size: tuple[int, int], share: float) -> Homography:
    """share: below 0.5, or corners could cross; 0 gives the identity. size: (height, width)."""
    height, width = size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    moved = corners + inwards * rng.uniform(0, share, (4, 2)) * (width, height)
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
    return Homography(np.asarray(matrix, dtype=np.float64))


def fine_picture(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """What both views are cut from."""
    return image.resize((FINER * size[1], FINER * size[0]), Image.Resampling.BILINEAR)


def first_view(fine: Image.Image) -> Image.Image:
    return fine.resize((fine.width // FINER, fine.height // FINER), Image.Resampling.BOX)


def second_view(fine: Image.Image, homography: Homography) -> Image.Image:
    # OpenCV's coordinates have the first pixel's centre at (0, 0) and count fine pixels.
    scale = np.diag([FINER, FINER, 1.0])
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(half) @ scale @ homography.matrix @ np.linalg.inv(scale) @ half
    seen = cv2.warpPerspective(
        np.asarray(fine),
        matrix,
        fine.size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return first_view(Image.fromarray(seen))

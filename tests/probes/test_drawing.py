"""What tasks draw: sizes, colours, outlines."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from common.feature_colors import ColorBasis
from probes.drawing import OBJECT_COLORS, display_size, feature_picture, overlay, picked_frames


def test_constant_maps_are_drawn() -> None:
    picture = feature_picture(ColorBasis.fit(torch.ones(4, 8, 8)), torch.ones(4, 8, 8), (16, 16))
    assert picture.size == (16, 16)


def test_sizes_of_pictures() -> None:
    assert display_size(480, 854) == (480, 270)
    assert display_size(64, 96) == (96, 64)
    assert picked_frames(60) == [29, 58]
    assert picked_frames(3) == [1], "first and last frame are never shown"


def test_overlay_tints_the_object_only() -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[5:15, 5:25] = 2
    drawn = np.asarray(overlay(Image.new("RGB", (30, 20), (100, 100, 100)), labels, (30, 20)))
    assert (drawn[labels == 0] == 100).all()
    np.testing.assert_allclose(drawn[10, 15], (100 + OBJECT_COLORS[1]) / 2, atol=1)
    np.testing.assert_allclose(drawn[5, 15], OBJECT_COLORS[1], atol=1)

"""What tasks draw: sizes, colours, outlines."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from common.feature_colors import ColorBasis
from common.flow_colors import flow_to_color
from probes.drawing import (
    CLASS_COLORS,
    LEGEND_ROW_PX,
    OBJECT_COLORS,
    WIDEST_PX,
    class_legend,
    display_size,
    feature_picture,
    overlay,
    picked_frames,
    with_wheel,
)


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


def test_a_legend_has_the_colours_of_the_classes() -> None:
    legend = np.asarray(class_legend([(0, "ground"), (2, "car"), (5, "tyre")]))
    assert legend.shape == (2 * LEGEND_ROW_PX, WIDEST_PX, 3)
    middle = LEGEND_ROW_PX // 2
    for (x, y), label in (((middle, middle), 0), ((middle, 3 * middle), 2), ((WIDEST_PX // 2 + middle, middle), 5)):
        assert legend[y, x].tolist() == CLASS_COLORS[label].round().tolist()
    assert (legend[:, 2 * LEGEND_ROW_PX : WIDEST_PX // 2] < 128).any(), "names"


def test_a_wheel_stands_in_the_corner_of_a_flow() -> None:
    plain = np.full((64, 96, 3), 7, np.uint8)
    shown = np.asarray(with_wheel(plain))
    assert (shown[:48] == 7).all() and (shown[:, :80] == 7).all() and (plain == 7).all()
    steps = np.linspace(-1, 1, 16)
    for row, column in ((55, 94), (62, 87), (52, 84)):
        motion = np.array([steps[column - 80], steps[row - 48]]).reshape(2, 1, 1)
        assert shown[row, column].tolist() == flow_to_color(motion, 1.0)[0, 0].tolist(), "its hue where it points to"
    assert shown[48, 80].tolist() == [7, 7, 7], "round"

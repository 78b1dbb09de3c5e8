"""The one wheel of the project is the Middlebury benchmark's."""

from __future__ import annotations

import numpy as np
import pytest

from common.flow_colors import color_wheel, flow_to_color


def test_wheel_is_the_benchmarks() -> None:
    wheel = color_wheel()
    assert wheel.shape == (55, 3)
    corners = {0: (1, 0, 0), 15: (1, 1, 0), 21: (0, 1, 0), 25: (0, 1, 1), 36: (0, 0, 1), 49: (1, 0, 1)}
    assert {i: tuple(wheel[i]) for i in corners} == corners


def test_colours_of_known_motions() -> None:
    """Right is red, left cyan, down yellow, up blue to violet; none is white, too long is darker, unknown is black."""
    flow = np.zeros((2, 1, 8), np.float32)
    flow[0, 0, :2] = 1, -1
    flow[1, 0, 2:4] = 1, -1
    flow[:, 0, 5] = np.nan
    flow[0, 0, 6] = 3
    flow[0, 0, 7] = 0.5
    right, left, down, up, still, unknown, far, half = flow_to_color(flow, max_px=1)[0].tolist()
    assert right == [255, 0, 0] and left[0] < 5 and left[2] == 255
    assert down[0] == 255 and 200 < down[1] < 255 and down[2] == 0
    assert up[2] == 255 and up[1] == 0
    assert still == [255, 255, 255] and unknown == [0, 0, 0] and far == [191, 0, 0] and half == [255, 127, 127]


def test_scale_of_colours() -> None:
    flow = np.random.default_rng(0).normal(0, 3, (2, 13, 17)).astype(np.float32)
    assert np.array_equal(flow_to_color(flow), flow_to_color(flow * 3)), "the longest vector sets the scale"
    assert not np.array_equal(flow_to_color(flow, 1000), flow_to_color(flow * 3, 1000))
    assert flow_to_color(np.full((2, 3, 3), np.nan)).max() == 0
    assert flow_to_color(np.zeros((2, 3, 3))).min() == 255
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="positive"):
            flow_to_color(flow, wrong)

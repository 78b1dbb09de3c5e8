"""Flow as a image: hue is the direction of motion, saturation its length.

Takes flow in pixels, gives an RGB image that can be written or shown. The wheel is the one
of the Middlebury benchmark (Baker et al., "A Database and Evaluation Methodology for Optical
Flow", IJCV 2011): 55 hues, more of them where the eye tells hues apart better; white is no
motion, black is no measurement.

Shape legend: C = 2 channels (dx right, dy down), H rows, W columns.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

# (hues on the arc, RGB channel that moves along it, does it rise): red → yellow → green → cyan → blue → magenta → red
_ARCS = ((15, 1, True), (6, 0, False), (4, 2, True), (11, 1, False), (13, 0, True), (6, 2, False))


@cache
def color_wheel() -> NDArray[np.float64]:
    """The 55 hues of the Middlebury wheel: [55, 3] RGB in 0..1, starting at red."""
    rgb = np.array([1.0, 0.0, 0.0])
    hues = []
    for count, channel, rises in _ARCS:
        for step in range(count):
            hue = rgb.copy()
            hue[channel] = np.floor(255 * step / count) / 255 if rises else 1 - np.floor(255 * step / count) / 255
            hues.append(hue)
        rgb[channel] = 1.0 if rises else 0.0
    return np.stack(hues)


def largest_motion_px(flow_chw: NDArray[np.floating]) -> float:
    """Length of the longest finite vector in pixels; 0 for a flow without any."""
    length = np.hypot(flow_chw[0], flow_chw[1])
    finite = length[np.isfinite(length)]
    return float(finite.max()) if finite.size else 0.0


def flow_to_color(flow_chw: NDArray[np.floating], max_px: float | None = None) -> NDArray[np.uint8]:
    """Draw a flow field with the usual colour wheel.

    flow_chw: [2, H, W], pixels. max_px: the motion drawn fully saturated; None takes the longest
    vector of this field, a number makes fields comparable (longer motion is drawn darker).
    Returns [H, W, 3] uint8 RGB; pixels whose flow is not finite are black.
    Raises ValueError on another shape or a max_px that is not positive.
    """
    flow = np.asarray(flow_chw, np.float64)
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise ValueError(f"a flow field has shape [2, H, W], not {list(flow.shape)}")
    if max_px is not None and not max_px > 0:
        raise ValueError(f"max_px must be a positive number of pixels, not {max_px}")
    known: NDArray[np.bool_] = np.isfinite(flow[0]) & np.isfinite(flow[1])
    u, v = np.where(known, flow, 0.0) / max(max_px or largest_motion_px(flow), 1e-6)
    length = np.hypot(u, v)

    wheel = color_wheel()
    # The benchmark's convention: angle of (-u, -v) from -pi to pi runs once around the wheel.
    position = (np.arctan2(-v, -u) / np.pi + 1) / 2 * (len(wheel) - 1)
    low = np.floor(position).astype(np.int64)
    share = (position - low)[..., None]
    hue = (1 - share) * wheel[low] + share * wheel[(low + 1) % len(wheel)]

    inside = (length <= 1)[..., None]
    rgb = np.where(inside, 1 - length[..., None] * (1 - hue), hue * 0.75)
    return np.where(known[..., None], np.floor(255 * rgb), 0).astype(np.uint8)


def wheel_picture(side: int) -> NDArray[np.uint8]:
    """The legend of `flow_to_color`, uint8 [side, side, 3]: at each place the colour of a motion from the middle to there, fully
    saturated at the rim; white outside."""
    across = (np.arange(side) + 0.5) * 2 / side - 1
    flow = np.stack(np.meshgrid(across, across))
    disk = flow_to_color(flow, 1.0)
    disk[np.hypot(*flow) > 1] = 255
    return disk

"""Outlines as implicit functions: where a point lies inside an object or a background layer.

Outlines are drawn by `compose`; `scene` evaluates them at exact pixel positions for masks and flow, `render`
rasterises them into the opacity of a image. `level` is negative inside, and an object's outline touches
the unit circle at most (x, y in units of the object's radius). Background outlines live in units of the frame's
shorter side, origin at the frame's centre, y down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Params = tuple[float, ...]
Level = Callable[[Float, Float, Params], Float]


def _disc(x: Float, y: Float, params: Params) -> Float:
    """Ellipse of aspect params[0] <= 1."""
    return np.hypot(x, y / params[0]) - 1.0


def _ring(x: Float, y: Float, params: Params) -> Float:
    """Annulus from radius params[0] to 1."""
    half_width = (1.0 - params[0]) / 2
    return np.abs(np.hypot(x, y) - (1.0 - half_width)) - half_width


def _star(x: Float, y: Float, params: Params) -> Float:
    """params: number of arms, depth of the notches."""
    arms, depth = params
    reach = 1.0 - depth * (0.5 - 0.5 * np.cos(arms * np.arctan2(y, x))) ** 0.6
    return np.hypot(x, y) - reach


def _polygon(x: Float, y: Float, params: Params) -> Float:
    """Regular polygon with params[0] corners on the unit circle."""
    corners = round(params[0])
    angles = 2 * np.pi * np.arange(corners) / corners
    faces = [x * np.cos(a) + y * np.sin(a) for a in angles]
    return np.maximum.reduce(faces) - np.cos(np.pi / corners)


def _blob(x: Float, y: Float, params: Params) -> Float:
    """params: amplitude and phase of the harmonics 2, 3, 4 of the outline's radius."""
    angle = np.arctan2(y, x)
    amplitudes, phases = params[0::2], params[1::2]
    reach = np.ones_like(angle)
    for harmonic, (amplitude, phase) in enumerate(zip(amplitudes, phases, strict=True), start=2):
        reach += amplitude * np.cos(harmonic * angle + phase)
    return np.hypot(x, y) - reach / (1.0 + sum(amplitudes))


def _cross(x: Float, y: Float, params: Params) -> Float:
    """Plus sign whose arms have half width params[0]; its corners lie on the unit circle."""
    half = params[0]
    length = np.sqrt(1.0 - half**2)
    across = np.maximum(np.abs(x) - length, np.abs(y) - half)
    down = np.maximum(np.abs(x) - half, np.abs(y) - length)
    return np.minimum(across, down)


def _plane(x: Float, y: Float, params: Params) -> Float:
    """Everywhere inside: the farthest layer."""
    return np.full(np.broadcast(x, y).shape, -1.0)


def _hills(x: Float, y: Float, params: Params) -> Float:
    """Below a skyline at height params[0] with three sines (amplitude, wavelength, phase)."""
    skyline = np.full_like(x, params[0])
    for amplitude, wavelength, phase in zip(params[1::3], params[2::3], params[3::3], strict=True):
        skyline += amplitude * np.sin(2 * np.pi * x / wavelength + phase)
    return skyline - y


def _trunks(x: Float, y: Float, params: Params) -> Float:
    """Upright bands, slightly bent: (position, half width, lean) each."""
    bands = []
    for position, half, lean in zip(params[0::3], params[1::3], params[2::3], strict=True):
        middle = position + lean * y + 0.02 * np.sin(7.0 * y + 40.0 * position)
        bands.append(np.abs(x - middle) - half)
    return np.minimum.reduce(bands)


def _rocks(x: Float, y: Float, params: Params) -> Float:
    """Union of lobed boulders: (x, y, radius) each."""
    boulders = []
    for cx, cy, radius in zip(params[0::3], params[1::3], params[2::3], strict=True):
        angle = np.arctan2(y - cy, x - cx)
        reach = radius * (1.0 + 0.16 * np.cos(3 * angle + 9.0 * cx) + 0.07 * np.cos(5 * angle + 7.0 * cy))
        boulders.append(np.hypot(x - cx, y - cy) - reach)
    return np.minimum.reduce(boulders)


_LEVELS: dict[str, Level] = {
    "disc": _disc,
    "ring": _ring,
    "star": _star,
    "polygon": _polygon,
    "blob": _blob,
    "cross": _cross,
    "plane": _plane,
    "hills": _hills,
    "trunks": _trunks,
    "rocks": _rocks,
}


@dataclass(frozen=True)
class Outline:
    """A named outline with its parameters."""

    family: str
    params: Params = ()

    def level(self, x: Float, y: Float) -> Float:
        """Negative inside, zero on the outline, positive outside; same shape as x and y, float64."""
        return _LEVELS[self.family](x, y, self.params)


def draw_outline(family: str, rng: np.random.Generator) -> Outline:
    """One member of a family: every object of a class has its own proportions."""
    params: Params
    match family:
        case "disc":
            params = (rng.uniform(0.8, 1.0),)
        case "ring":
            params = (rng.uniform(0.4, 0.52),)
        case "star":
            params = (float(rng.integers(5, 7)), rng.uniform(0.42, 0.55))
        case "polygon":
            params = (float(rng.integers(3, 5)),)
        case "blob":
            params = tuple(v for k in (0.22, 0.14, 0.08) for v in (k * rng.uniform(0.5, 1.0), rng.uniform(0, 6.28)))
        case "cross":
            params = (rng.uniform(0.3, 0.4),)
        case "hills":
            waves = [(rng.uniform(0.02, 0.05) * w, w, rng.uniform(0, 6.28)) for w in rng.uniform(0.3, 1.2, size=3)]
            params = (rng.uniform(0.0, 0.28), *(float(v) for wave in waves for v in wave))
        case "trunks":
            positions = np.linspace(-0.75, 0.75, int(rng.integers(3, 6))) + rng.uniform(-0.1, 0.1)
            bands = [
                (p + rng.uniform(-0.06, 0.06), rng.uniform(0.03, 0.075), rng.uniform(-0.12, 0.12)) for p in positions
            ]
            params = tuple(float(v) for band in bands for v in band)
        case "rocks":
            count = int(rng.integers(4, 8))
            boulders = [
                (rng.uniform(-0.9, 0.9), rng.uniform(-0.45, 0.55), rng.uniform(0.1, 0.24)) for _ in range(count)
            ]
            params = tuple(float(v) for boulder in boulders for v in boulder)
        case _:
            params = ()
    return Outline(family, params)

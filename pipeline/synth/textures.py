"""Paint for surfaces: band-limited patterns in canonical coordinates, mixed from a few colours.

`compose` draws a `Paint` (family, colours, wavelength, its own seed); `render` asks for its colours on a canvas once per scene.
Patterns are finer than an object and coarser than two pixels, and every pattern carries some noise: that breaks the
ambiguity of periodic patterns for flow estimators, as wear and dirt do on real things.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Canvas:
    """A raster over canonical coordinates: texel (i, j) has its centre at (left + (i + 1/2) / density, top + (j + 1/2) / density).

    left, top in units of the frame's shorter side; density in texels per such unit.
    """

    left: float
    top: float
    columns: int
    rows: int
    density: float

    def axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """x [1, columns] and y [rows, 1] of texel centres."""
        x = self.left + (np.arange(self.columns, dtype=np.float64) + 0.5) / self.density
        y = self.top + (np.arange(self.rows, dtype=np.float64) + 0.5) / self.density
        return x[None, :], y[:, None]


@dataclass(frozen=True)
class Paint:
    """family: see `_PATTERNS`. colours: RGB in [0, 1], the first two are the pattern's. wavelength in units of the shorter side."""

    family: str
    colours: tuple[Colour, ...]
    wavelength: float
    angle: float
    seed: int


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """RGB of a hue (taken modulo 1), saturation and value clipped to [0, 1]."""
    return colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))


def _noise(canvas: Canvas, rng: np.random.Generator, wavelength: float, stretch: float = 1.0) -> Field:
    """[rows, columns] smooth noise, about [-1, 1], from a lattice turned at random; `stretch` > 1: upright, longer along x."""
    pitch_x, pitch_y = wavelength * stretch / 2 * canvas.density, wavelength / 2 * canvas.density
    angle = rng.uniform(0, 2 * np.pi) if stretch == 1.0 else 0.0
    reach = np.hypot(canvas.columns, canvas.rows) / 2
    knots_x, knots_y = 2 * int(np.ceil(reach / pitch_x)) + 4, 2 * int(np.ceil(reach / pitch_y)) + 4
    lattice = rng.uniform(-1.0, 1.0, size=(knots_y, knots_x)).astype(np.float32)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c / pitch_x, s / pitch_x], [-s / pitch_y, c / pitch_y]])
    shift = np.array([knots_x, knots_y]) / 2 - turn @ (canvas.columns / 2, canvas.rows / 2)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    smooth = cv2.warpAffine(lattice, np.column_stack([turn, shift]), (canvas.columns, canvas.rows), flags=flags)
    return np.asarray(smooth, np.float32) * 1.3


def _octaves(canvas: Canvas, rng: np.random.Generator, wavelength: float, count: int, stretch: float = 1.0) -> Field:
    """Sum of `count` noises, each of half the wavelength and 0.6 of the strength of the one before."""
    total = np.zeros((canvas.rows, canvas.columns), np.float32)
    for octave in range(count):
        total += 0.6**octave * _noise(canvas, rng, wavelength / 2**octave, stretch)
    return total


def _turned(canvas: Canvas, angle: float) -> tuple[Field, Field]:
    """Canonical coordinates turned by `angle`, [rows, columns] each."""
    x, y = canvas.axes()
    c, s = np.cos(angle), np.sin(angle)
    return (c * x + s * y).astype(np.float32), (c * y - s * x).astype(np.float32)


def _soft_sign(wave: Field, hardness: float) -> Field:
    """A sine-like wave pressed towards a square wave, in [0, 1]."""
    return 0.5 + 0.5 * np.tanh(hardness * wave)


def _rings(canvas: Canvas, paint: Paint, rng: np.random.Generator) -> Field:
    x, y = canvas.axes()
    return _soft_sign(np.sin(2 * np.pi * np.hypot(x, y) / paint.wavelength).astype(np.float32), 2.0)


def _stripes(canvas: Canvas, paint: Paint, rng: np.random.Generator) -> Field:
    along, _ = _turned(canvas, paint.angle)
    bend = 0.12 * paint.wavelength * _noise(canvas, rng, 4 * paint.wavelength)
    return _soft_sign(np.sin(2 * np.pi * (along + bend) / paint.wavelength), 2.5)


def _waves(canvas: Canvas, paint: Paint, rng: np.random.Generator) -> Field:
    along, across = _turned(canvas, paint.angle)
    bend = 0.3 * paint.wavelength * np.sin(2 * np.pi * across / (1.5 * paint.wavelength))
    return _soft_sign(np.sin(2 * np.pi * (along + bend) / paint.wavelength), 2.0)


def _checker(canvas: Canvas, paint: Paint, rng: np.random.Generator) -> Field:
    along, across = _turned(canvas, paint.angle)
    k = np.pi / paint.wavelength
    return _soft_sign(np.sin(k * along) * np.sin(k * across), 5.0)


def _dots(canvas: Canvas, paint: Paint, rng: np.random.Generator) -> Field:
    along, across = _turned(canvas, paint.angle)
    k = 2 * np.pi / paint.wavelength
    return _soft_sign(np.cos(k * along) + np.cos(k * across) - 0.7, 3.0)


def _spots(canvas: Canvas, paint: Paint, rng: np.random.Generator) -> Field:
    return _soft_sign(_noise(canvas, rng, 1.2 * paint.wavelength) - 0.1, 6.0)


def _clouds(canvas: Canvas, paint: Paint, rng: np.random.Generator) -> Field:
    return _soft_sign(_octaves(canvas, rng, 5 * paint.wavelength, 4), 1.3)


def _grain(canvas: Canvas, paint: Paint, rng: np.random.Generator) -> Field:
    return _soft_sign(_octaves(canvas, rng, 1.5 * paint.wavelength, 3, stretch=4.0), 1.6)


def _speckle(canvas: Canvas, paint: Paint, rng: np.random.Generator) -> Field:
    coarse, fine = _noise(canvas, rng, 4 * paint.wavelength), _noise(canvas, rng, 0.8 * paint.wavelength)
    return _soft_sign(0.5 * coarse + fine, 2.0)


def _mosaic(canvas: Canvas, paint: Paint, rng: np.random.Generator) -> Field:
    """Cells of even tone around scattered points."""
    pitch = 1.6 * paint.wavelength * canvas.density
    count = max(int(canvas.columns * canvas.rows / pitch**2), 2)
    seeds = np.full((canvas.rows, canvas.columns), 255, np.uint8)
    seeds[rng.integers(0, canvas.rows, count), rng.integers(0, canvas.columns, count)] = 0
    _, cells = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    tones = rng.uniform(0.0, 1.0, size=count + 1).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(tones[cells], (0, 0), 1.2), np.float32)


_PATTERNS: dict[str, Callable[[Canvas, Paint, np.random.Generator], Field]] = {
    "rings": _rings,
    "stripes": _stripes,
    "waves": _waves,
    "checker": _checker,
    "dots": _dots,
    "spots": _spots,
    "clouds": _clouds,
    "grain": _grain,
    "speckle": _speckle,
    "mosaic": _mosaic,
}


def colours_on(canvas: Canvas, paint: Paint) -> Field:
    """[rows, columns, 3] RGB in [0, 1]: the pattern mixes colours 0 and 1, broad noise lets a third in, fine noise roughens."""
    rng = np.random.default_rng(paint.seed)
    first, second = (np.array(c, np.float32) for c in paint.colours[:2])
    pattern = _PATTERNS[paint.family](canvas, paint, rng)[..., None]
    rgb = first + (second - first) * pattern
    if len(paint.colours) > 2:
        third = np.array(paint.colours[2], np.float32)
        share = 0.8 * _soft_sign(_noise(canvas, rng, 7 * paint.wavelength) - 0.35, 4.0)[..., None]
        rgb += share * (third - rgb)
    tone = 0.16 * _noise(canvas, rng, 4 * paint.wavelength) + 0.16 * _noise(canvas, rng, 0.7 * paint.wavelength)
    return np.asarray(np.clip(rgb * (1.0 + tone[..., None]), 0.0, 1.0), np.float32)

"""How the camera and every surface move: closed-form, so that position at any frame is exact.

A surface's canonical coordinates u (units of the frame's shorter side, origin at the surface's centre) reach the
image at frame t by

    x_px = centre_px + side_px * zoom(t) * R(roll(t)) * (position(t) + pan(t) / depth + scale(t) * R(angle(t)) * u)

which is an affine map; flow between two frames is the composition of one such map with the inverse of another.
Image coordinates are continuous: pixel (column i, row j) covers [i, i+1) x [j, j+1) and has its centre at (i + 1/2, j + 1/2).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Swing:
    """A sine in time: amplitude * sin(2 pi t / period_frames + phase)."""

    amplitude: float = 0.0
    period_frames: float = 1.0
    phase: float = 0.0

    def at(self, t: float) -> float:
        return self.amplitude * float(np.sin(2 * np.pi * t / self.period_frames + self.phase))


@dataclass(frozen=True)
class Course:
    """A straight course with a swing on each axis, in units of the frame's shorter side per frame."""

    start: tuple[float, float] = (0.0, 0.0)
    drift: tuple[float, float] = (0.0, 0.0)
    swing: tuple[Swing, Swing] = field(default=(Swing(), Swing()))

    def at(self, t: float) -> NDArray[np.float64]:
        """[2] position; `start` is where the straight part is at t = 0."""
        return np.array([s + d * t + w.at(t) for s, d, w in zip(self.start, self.drift, self.swing, strict=True)])


@dataclass(frozen=True)
class Motion:
    """A surface's own motion: course, angle (radians) and logarithm of scale. Times count from the clip's middle."""

    course: Course = field(default=Course())
    angle: float = 0.0
    spin: float = 0.0
    sway: Swing = field(default=Swing())
    log_scale: Swing = field(default=Swing())

    def scale_at(self, t: float) -> float:
        return float(np.exp(self.log_scale.at(t)))

    def angle_at(self, t: float) -> float:
        return self.angle + self.spin * t + self.sway.at(t)


@dataclass(frozen=True)
class Camera:
    """Common motion. `pan` is the shift of a surface at depth 1; a surface at depth z shifts by pan / z (parallax)."""

    pan: Course
    roll: float
    roll_sway: Swing
    zoom: float

    def roll_at(self, t: float) -> float:
        return self.roll * t + self.roll_sway.at(t)

    def zoom_at(self, t: float) -> float:
        return float(np.exp(self.zoom * t))


def _turn(angle: float) -> NDArray[np.float64]:
    """[2, 2] rotation; y points down, so positive angles turn clockwise on the screen."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def canonical_to_picture(
    motion: Motion, depth: float, camera: Camera, t: float, *, width_px: int, height_px: int
) -> NDArray[np.float64]:
    """[3, 3] homogeneous map u → x_px at time t (frames from the clip's middle), float64."""
    side_px = min(width_px, height_px)
    lens = side_px * camera.zoom_at(t) * _turn(camera.roll_at(t))
    matrix = np.eye(3)
    matrix[:2, :2] = lens @ (motion.scale_at(t) * _turn(motion.angle_at(t)))
    matrix[:2, 2] = lens @ (motion.course.at(t) + camera.pan.at(t) / depth) + (width_px / 2, height_px / 2)
    return matrix

"""Draws the contents of a scene from (seed, index): which objects, how painted, on which background, moving how.

Classes are fixed pairs of a shape family and a texture family with a tendency in hue, so that what is learned on some
videos holds on others; proportions, colours, sizes and motions vary from object to object. Backgrounds borrow colours from
the objects in front of them (`Style.camouflage`), so colour alone does not tell an object from what is behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.synth.motion import Camera, Course, Motion, Swing
from pipeline.synth.shapes import Outline, draw_outline
from pipeline.synth.textures import Colour, Paint, hsv


@dataclass(frozen=True)
class ObjectClass:
    """What the members of a class share. hue in turns (0 red, 1/3 green, 2/3 blue)."""

    name: str
    outline: str
    texture: str
    hue: float


CLASSES: tuple[ObjectClass, ...] = (
    ObjectClass("coin", "disc", "rings", 0.12),
    ObjectClass("starfish", "star", "spots", 0.99),
    ObjectClass("tile", "polygon", "checker", 0.60),
    ObjectClass("tyre", "ring", "stripes", 0.32),
    ObjectClass("amoeba", "blob", "dots", 0.82),
    ObjectClass("cross", "cross", "waves", 0.48),
)
_BACKGROUND_TEXTURES = ("clouds", "mosaic", "grain", "speckle")
_MIDDLE_OUTLINES = ("hills", "trunks", "rocks")
_FAR_DEPTH, _MIDDLE_DEPTHS = 10.0, (7.2, 8.6)
_NEAREST_OBJECT, _FARTHEST_OBJECT = 3.0, 6.0
_LARGEST_LOG_SCALE = 0.1  # keeps exp(2 * this) below the ratio of neighbouring depths: objects never change places


@dataclass(frozen=True)
class Style:
    """What can be turned about a scene. Lengths in units of the frame's shorter side.

    objects: least and most objects. radius: of the circle around an object. hue_spread: of a class, in turns.
    camouflage: chance that a background layer takes over an object's colour. speed: multiplies every motion.
    difficulty: from 0 to 1, what keeps a probe from its answer: colours tell less of classes and of what is an object, pictures
    get noisier and paler, until at 1 they are one grey and every probe is at its chance level. Contents and motions stay.
    """

    objects: tuple[int, int] = (2, 4)
    radius: tuple[float, float] = (0.1, 0.225)
    hue_spread: float = 0.08
    camouflage: float = 0.6
    speed: float = 1.0
    difficulty: float = 0.0

    def __post_init__(self) -> None:
        fewest, most = self.objects
        if not 1 <= fewest <= most <= len(CLASSES):
            raise ValueError(f"style.objects is {self.objects}; give 1 <= least <= most <= {len(CLASSES)}")
        if not 0 < self.radius[0] <= self.radius[1] <= 0.5:
            raise ValueError(f"style.radius is {self.radius}; give 0 < smallest <= largest <= 0.5")
        if not (0 <= self.camouflage <= 1 and self.speed >= 0 and self.hue_spread >= 0):
            raise ValueError(
                f"style has camouflage={self.camouflage}, speed={self.speed}, hue_spread={self.hue_spread}; "
                "camouflage lies in [0, 1], the others are not negative"
            )
        if not 0 <= self.difficulty <= 1:
            raise ValueError(f"difficulty is {self.difficulty}; give 0 (plain to see) to 1 (nothing to see)")

    def harder(self, easy: float, hardest: float) -> float:
        """Between what holds at difficulty 0, to the last bit, and at 1."""
        return easy + self.difficulty * (hardest - easy)


@dataclass(frozen=True)
class Surface:
    """One rigid, flat, textured thing. label 0 is background. size: units of the shorter side per unit of the outline."""

    label: int
    kind: str
    depth: float
    size: float
    outline: Outline
    paint: Paint
    motion: Motion = field(default=Motion())

    @property
    def is_object(self) -> bool:
        return self.label > 0


@dataclass(frozen=True)
class Contents:
    """Surfaces from far to near, and the camera that sees them."""

    surfaces: tuple[Surface, ...]
    camera: Camera


def _swing(rng: np.random.Generator, speed: float, periods: tuple[float, float]) -> Swing:
    """A swing whose greatest speed is uniform in [0.3, 1] * speed."""
    period = rng.uniform(*periods)
    return Swing(rng.uniform(0.3, 1.0) * speed * period / (2 * np.pi), period, rng.uniform(0, 2 * np.pi))


def _heading(rng: np.random.Generator, speed: float) -> tuple[float, float]:
    angle = rng.uniform(0, 2 * np.pi)
    return float(speed * np.cos(angle)), float(speed * np.sin(angle))


def _draw_camera(rng: np.random.Generator, style: Style) -> Camera:
    """Speeds are stated for the farthest layer: 0.0015-0.0045 sides per frame and about as much swing."""
    k = style.speed * _FAR_DEPTH
    drift = _heading(rng, k * rng.uniform(0.0015, 0.0045))
    swing = (_swing(rng, 0.002 * k, (24, 60)), _swing(rng, 0.0012 * k, (24, 60)))
    roll = style.speed * rng.uniform(-0.002, 0.002)
    sway = _swing(rng, 0.001 * style.speed, (20, 50))
    return Camera(Course(drift=drift, swing=swing), roll, sway, style.speed * rng.uniform(-0.0012, 0.0012))


def draw_motion(rng: np.random.Generator, style: Style, aspect: tuple[float, float]) -> Motion:
    """An object's own motion; at the clip's middle it is near the middle of the image (aspect: half width, half height)."""
    start = (rng.uniform(-0.72, 0.72) * aspect[0], rng.uniform(-0.68, 0.68) * aspect[1])
    course = Course(
        start=start,
        drift=_heading(rng, style.speed * rng.uniform(0.004, 0.009)),
        swing=(_swing(rng, 0.004 * style.speed, (16, 40)), _swing(rng, 0.004 * style.speed, (16, 40))),
    )
    zoom = Swing(
        rng.uniform(0.02, _LARGEST_LOG_SCALE), rng.uniform(24, 60) / max(style.speed, 1e-6), rng.uniform(0, 2 * np.pi)
    )
    spin = style.speed * rng.uniform(0.003, 0.018) * rng.choice([-1.0, 1.0])
    return Motion(course, rng.uniform(0, 2 * np.pi), spin, _swing(rng, 0.01 * style.speed, (16, 40)), zoom)


def _object_paint(rng: np.random.Generator, kind: ObjectClass, style: Style) -> Paint:
    spread = style.harder(style.hue_spread, 0.5)
    hue = kind.hue + rng.uniform(-spread, spread)
    bright = hsv(hue, rng.uniform(0.4, 0.85), rng.uniform(0.6, 0.95))
    dark = hsv(hue + rng.uniform(-0.1, 0.1), rng.uniform(0.3, 0.9), rng.uniform(0.18, 0.42))
    return Paint(
        kind.texture, (bright, dark), rng.uniform(0.055, 0.085), rng.uniform(0, np.pi), int(rng.integers(2**31))
    )


def _background_paint(rng: np.random.Generator, style: Style, borrowed: list[Colour]) -> Paint:
    hue = rng.uniform()
    colours = [
        hsv(hue, rng.uniform(0.15, 0.6), rng.uniform(0.5, 0.9)),
        hsv(hue + rng.uniform(-0.15, 0.15), rng.uniform(0.15, 0.6), rng.uniform(0.15, 0.45)),
        hsv(rng.uniform(), rng.uniform(0.15, 0.6), rng.uniform(0.25, 0.8)),
    ]
    taken = borrowed[int(rng.integers(len(borrowed)))]
    chance = rng.uniform()
    if chance < style.camouflage:
        colours[int(rng.integers(3))] = taken
    elif chance < style.harder(style.camouflage, 1.0):
        colours[int(1e6 * chance) % 3] = taken  # no further draw: what follows is the same at every difficulty
    family = _BACKGROUND_TEXTURES[int(rng.integers(len(_BACKGROUND_TEXTURES)))]
    return Paint(family, tuple(colours), rng.uniform(0.05, 0.09), rng.uniform(0, np.pi), int(rng.integers(2**31)))


def _draw_layers(rng: np.random.Generator, style: Style, borrowed: list[Colour]) -> list[Surface]:
    layers = [Surface(0, "far", _FAR_DEPTH, 1.0, Outline("plane"), _background_paint(rng, style, borrowed))]
    depths = sorted(_MIDDLE_DEPTHS, reverse=True)[: int(rng.integers(1, 3))]
    for depth, pick in zip(depths, rng.permutation(len(_MIDDLE_OUTLINES)), strict=False):
        family = _MIDDLE_OUTLINES[int(pick)]
        outline = draw_outline(family, rng)
        layers.append(Surface(0, family, depth, 1.0, outline, _background_paint(rng, style, borrowed)))
    return layers


def draw_contents(rng: np.random.Generator, style: Style, aspect: tuple[float, float]) -> Contents:
    """Everything of a scene. Labels 1..C are dealt at random over depth; classes in one scene differ. `aspect`: half width, half height."""
    camera = _draw_camera(rng, style)
    count = int(rng.integers(style.objects[0], style.objects[1] + 1))
    kinds = [CLASSES[int(i)] for i in rng.permutation(len(CLASSES))[:count]]
    depths = np.geomspace(_NEAREST_OBJECT, _FARTHEST_OBJECT, max(count, 2))[:count]
    objects = [
        Surface(
            label,
            kind.name,
            float(depth),
            rng.uniform(*style.radius),
            draw_outline(kind.outline, rng),
            _object_paint(rng, kind, style),
            draw_motion(rng, style, aspect),
        )
        for label, (kind, depth) in enumerate(zip(kinds, rng.permutation(depths), strict=True), start=1)
    ]
    borrowed = [colour for surface in objects for colour in surface.paint.colours[:2]]
    surfaces = _draw_layers(rng, style, borrowed) + objects
    return Contents(tuple(sorted(surfaces, key=lambda s: -s.depth)), camera)

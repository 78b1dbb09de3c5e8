"""Scenes put together by hand, in which everything is known."""

from __future__ import annotations

from pipeline.synth import Scene, Style
from pipeline.synth.compose import Contents, Surface
from pipeline.synth.motion import Camera, Course, Motion, Swing
from pipeline.synth.shapes import Outline
from pipeline.synth.textures import Paint

SMALL = (120, 160)
STILL = Camera(Course(), 0.0, Swing(), 0.0)


def grey_paint(family: str = "clouds") -> Paint:
    return Paint(family, ((0.8, 0.8, 0.8), (0.3, 0.3, 0.3)), 0.1, 0.0, 5)


def scene_of(*surfaces: Surface, camera: Camera = STILL, size: tuple[int, int] = SMALL, frames: int = 9) -> Scene:
    far = Surface(0, "far", 10.0, 1.0, Outline("plane"), grey_paint())
    return Scene(0, 0, size[0], size[1], frames, Style(), Contents((far, *surfaces), camera))


def disc(label: int, depth: float, radius: float, motion: Motion) -> Surface:
    return Surface(label, "coin", depth, radius, Outline("disc", (1.0,)), grey_paint("rings"), motion)

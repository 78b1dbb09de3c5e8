"""Images of a scene: every surface's paint is rasterised once, then carried to each frame by its affine motion.

A scene's geometry comes in, [H, W, 3] uint8 frames go out. Surfaces become premultiplied RGBA sprites at about two
texels per pixel; a frame composites them from far to near at twice the resolution and is averaged down, so that
edges are as soft as a camera's. `faded` then takes away what the scene's difficulty asks for. Everything is a pure function of
the scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.synth.compose import Surface
from pipeline.synth.scene import Scene
from pipeline.synth.textures import Canvas, colours_on

_SUPERSAMPLING = 2
_SEEN_THROUGH = np.float32(1.0) - np.arange(256, dtype=np.float32) / np.float32(255.0)  # by opacity
_GREY, _NOISE = 127.5, 60.0  # levels of 0..255: what pictures fade to; deviation of the noise at difficulty 1
_NOISE_STREAM = 0x6E6F6973  # keeps the noise apart from the draw of the scene
_RIM = 0.3  # objects darken towards their outline over this share of their radius, which makes them look solid


@dataclass(frozen=True)
class _Sprite:
    """rgba: [rows, columns, 4] uint8, premultiplied; [rows, columns, 3] for a surface without holes."""

    canvas: Canvas
    rgba: NDArray[np.uint8]


def _canvas_of(scene: Scene, surface: Surface, density: float) -> Canvas:
    """For an object its bounding square, for a layer all that any frame shows of it."""
    if surface.is_object:
        half = surface.size + 2 / density
        lower, upper = np.array([-half, -half]), np.array([half, half])
    else:
        w, h = scene.width, scene.height
        corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]], float).T
        shown = [(np.linalg.inv(scene.to_picture(surface, t)) @ corners)[:2] for t in range(scene.frames)]
        points = np.concatenate(shown, axis=1)
        lower, upper = points.min(axis=1) - 4 / density, points.max(axis=1) + 4 / density
    columns, rows = np.ceil((upper - lower) * density).astype(int)
    return Canvas(float(lower[0]), float(lower[1]), int(columns), int(rows), density)


def _opacity(surface: Surface, canvas: Canvas) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Antialiased coverage in [0, 1] and the outline's level, [rows, columns] each."""
    x, y = canvas.axes()
    x, y = np.broadcast_arrays(x / surface.size, y / surface.size)
    level = surface.outline.level(x, y)
    down, right = np.gradient(level)
    slope = np.maximum(np.hypot(down, right), 1e-9)  # level per texel: turns the level into a distance near the outline
    return np.clip(0.5 - level / slope, 0.0, 1.0).astype(np.float32), level.astype(np.float32)


def _sprite(scene: Scene, surface: Surface, density: float) -> _Sprite:
    canvas = _canvas_of(scene, surface, density)
    rgb = colours_on(canvas, surface.paint)
    if surface.outline.family == "plane":
        return _Sprite(canvas, np.rint(255 * rgb).astype(np.uint8))
    alpha, level = _opacity(surface, canvas)
    if surface.is_object:
        rgb = rgb * (0.72 + 0.28 * np.clip(-level / _RIM, 0.0, 1.0))[..., None]
    rgba = np.concatenate([rgb * alpha[..., None], alpha[..., None]], axis=2)
    return _Sprite(canvas, np.rint(255 * rgba).astype(np.uint8))


class Renderer:
    """Holds a scene's sprites, which takes a while to make; `frame(t)` may then be called in any order."""

    def __init__(self, scene: Scene) -> None:
        density = float(_SUPERSAMPLING * min(scene.width, scene.height))
        self._scene = scene
        self._sprites = [_sprite(scene, surface, density) for surface in scene.surfaces]

    def frame(self, t: int) -> NDArray[np.uint8]:
        """[H, W, 3] uint8 RGB. Raises ValueError for a frame outside the scene."""
        return eight_bits(faded(self.drawn(t), self._scene, t))

    def drawn(self, t: int) -> NDArray[np.float32]:
        """[H, W, 3] RGB in 0..255 before fading."""
        k = _SUPERSAMPLING
        size = (self._scene.width * k, self._scene.height * k)
        image = np.zeros((size[1], size[0], 3), np.float32)
        for surface, sprite in zip(self._scene.surfaces, self._sprites, strict=True):
            self._paint(image, surface, sprite, t)
        small = cv2.resize(image, (self._scene.width, self._scene.height), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.float32)

    def _paint(self, image: NDArray[np.float32], surface: Surface, sprite: _Sprite, t: int) -> None:
        """Composite one sprite onto the supersampled image, in place."""
        k, canvas = _SUPERSAMPLING, sprite.canvas
        matrix = self._scene.to_picture(surface, t)
        top, bottom, left, right = 0, image.shape[0], 0, image.shape[1]
        if surface.is_object:
            reach = (surface.size * float(np.hypot(*matrix[:2, 0])) + 2) * k
            left, top = (max(int(np.floor(c * k - reach)), 0) for c in matrix[:2, 2])
            right = min(int(np.ceil(matrix[0, 2] * k + reach)), right)
            bottom = min(int(np.ceil(matrix[1, 2] * k + reach)), bottom)
            if left >= right or top >= bottom:
                return
        # subpixel (j, i) of the region → image ((j + left + 1/2) / k) → canonical → texel index (its centre at + 1/2)
        to_picture = np.array([[1 / k, 0, (left + 0.5) / k], [0, 1 / k, (top + 0.5) / k], [0, 0, 1]])
        d = canvas.density
        to_texel = np.array([[d, 0, -d * canvas.left - 0.5], [0, d, -d * canvas.top - 0.5], [0, 0, 1]])
        mapping = (to_texel @ np.linalg.inv(matrix) @ to_picture)[:2]
        border = cv2.BORDER_CONSTANT if surface.is_object else cv2.BORDER_REPLICATE
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(sprite.rgba, mapping, (right - left, bottom - top), flags=flags, borderMode=border)
        region = image[top:bottom, left:right]
        if warped.shape[2] == 3:
            region[:] = warped
        else:
            seen_through = cv2.cvtColor(cv2.LUT(warped[..., 3], _SEEN_THROUGH), cv2.COLOR_GRAY2RGB)
            np.multiply(region, seen_through, out=region)
            np.add(region, cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB), out=region)


def eight_bits(image_hwc: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(np.clip(image_hwc, 0.0, 255.0)).astype(np.uint8)


def faded(image_hwc: NDArray[np.float32], scene: Scene, t: int) -> NDArray[np.float32]:
    """What is left of a frame at difficulty d: grey + (1 - d) (frame + d noise - grey). At 0 the frame itself, at 1 grey.

    Noise first: contrast alone could be won back by any network that normalises its input. Fading last: noise alone would
    still tell places of one picture apart.
    """
    difficulty = np.float32(scene.style.difficulty)
    if difficulty == 0:
        return image_hwc
    words = (scene.index, scene.seed % 2**32, scene.seed >> 32, t, _NOISE_STREAM)
    noise = np.random.default_rng(np.random.SeedSequence(words)).standard_normal(image_hwc.shape, dtype=np.float32)
    noisy = image_hwc + difficulty * np.float32(_NOISE) * noise
    return np.asarray(np.float32(_GREY) + (1 - difficulty) * (noisy - np.float32(_GREY)), np.float32)

"""A scene in relief: every flat surface gets a slant, and with it exact depth and normals that a picture can tell.

The videos' surfaces face the camera, so their depth is a constant each and their normals are all the same. Here a slant is drawn per
surface (apart from the scene's own draw, which stays as it is), depth follows from the plane through the surface's centre,

    1 / z(p) = n . r(p) / (z_centre  n . r(p_centre)),   r(p) = ((x - c_x) / f, (y - c_y) / f, 1)

and the picture is lit by one lamp and seen through haze (Koschmieder's law, transmission exp(-(z - 2) / 6)): both say how far off
things are and how they lie. The scene's difficulty takes haze and lamp away before it fades the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.synth.render import Renderer, eight_bits, faded
from pipeline.synth.scene import Scene

_STREAM = 0x72656C6965  # keeps the draw of slants apart from the draw of the scene
_OBJECT_TILT, _LAYER_TILT = (15.0, 50.0), (5.0, 25.0)  # degrees away from facing the camera, least and most
_LAMP = np.array([-0.5, -0.6, -0.62]) / np.linalg.norm([0.5, 0.6, 0.62])  # from the upper left, before the scene
_UNLIT, _LIT = 0.55, 0.6
_HAZE_RGB = np.array([191.0, 199.0, 209.0], np.float32)
_CLEAR_UNTIL, _HAZE_LENGTH = 2.0, 6.0


@dataclass(frozen=True)
class Relief:
    """picture: [H, W, 3] uint8. depth: [H, W] float32, scene units. normals: [H, W, 3] unit vectors towards the camera
    (x right, y down, z away)."""

    picture: NDArray[np.uint8]
    depth: NDArray[np.float32]
    normals: NDArray[np.float64]


def intrinsics(scene: Scene) -> NDArray[np.float64]:
    """[3, 3] in pixels, the first pixel's centre at (0, 0): the shorter side is seen under 53 degrees."""
    focal_px = float(min(scene.width, scene.height))
    return np.array([[focal_px, 0, (scene.width - 1) / 2], [0, focal_px, (scene.height - 1) / 2], [0, 0, 1]])


def slants(scene: Scene) -> NDArray[np.float64]:
    """[surfaces, 3] unit normals towards the camera."""
    words = (scene.index, scene.seed % 2**32, scene.seed >> 32, _STREAM % 2**32, _STREAM >> 32)
    rng = np.random.default_rng(np.random.SeedSequence(words))
    normals = []
    for surface in scene.surfaces:
        tilt = np.deg2rad(rng.uniform(*(_OBJECT_TILT if surface.is_object else _LAYER_TILT)))
        azimuth = rng.uniform(0, 2 * np.pi)
        normals.append((np.sin(tilt) * np.cos(azimuth), np.sin(tilt) * np.sin(azimuth), -np.cos(tilt)))
    return np.array(normals)


def relief_of(scene: Scene, renderer: Renderer, t: int) -> Relief:
    """Frame t of a scene in relief. renderer: the scene's."""
    owner = scene.owners(t, scene.picture_grid())
    matrix, normals = intrinsics(scene), slants(scene)
    rows, columns = np.mgrid[: scene.height, : scene.width]
    rays = np.stack([(columns - matrix[0, 2]) / matrix[0, 0], (rows - matrix[1, 2]) / matrix[1, 1]], axis=-1)
    depth = np.empty(owner.shape)
    for index, surface in enumerate(scene.surfaces):
        place_px = scene.to_picture(surface, t)[:2, 2] - 0.5  # continuous coordinates to those of pixel centres
        centre = np.array([*((place_px - matrix[:2, 2]) / matrix[0, 0]), 1.0])
        distance = surface.depth / surface.motion.scale_at(t - (scene.frames - 1) / 2)
        here = owner == index
        towards = rays[here] @ normals[index, :2] + normals[index, 2]
        depth[here] = distance * (normals[index] @ centre) / towards
    towards_hwc = normals[owner]
    light = _UNLIT + _LIT * np.maximum(towards_hwc @ _LAMP, 0)
    clear = np.exp(-np.maximum(depth - _CLEAR_UNTIL, 0) / _HAZE_LENGTH)
    light, clear = (scene.style.harder(1.0, 0.0) * (one - 1) + 1 for one in (light, clear))
    lit = renderer.drawn(t) * light[..., None].astype(np.float32)
    hazy = (lit * clear[..., None] + _HAZE_RGB * (1 - clear[..., None])).astype(np.float32)
    return Relief(eight_bits(faded(hazy, scene, t)), depth.astype(np.float32), towards_hwc)

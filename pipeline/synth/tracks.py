"""Exact point tracks of a scene: where points of its surfaces are in every frame, and where they can be seen.

Half of the points start on objects, half anywhere, each at a frame of its own; it then moves with the surface that owns
that place, by the same matrices that make the flow. A point is visible while it is inside the picture and its surface owns its place.
`write` puts them on disk in the form of TAP-Vid-DAVIS, for tracking probes.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from pipeline.synth.scene import Grid, Scene

TRACKS = 64
_STREAM = 0x747261636B  # keeps the draw of points apart from the draw of the scene


def exact_tracks(scene: Scene, points: int = TRACKS) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """([n, t, 2] as shares of width and height, [n, t] occluded). Equal scenes give equal tracks."""
    words = (scene.index, scene.seed % 2**32, scene.seed >> 32, _STREAM % 2**32, _STREAM >> 32)
    rng = np.random.default_rng(np.random.SeedSequence(words))
    places = np.empty((points, scene.frames, 2))
    occluded = np.ones((points, scene.frames), dtype=bool)
    extent = np.array([scene.width, scene.height])
    matrices = [[scene.to_picture(surface, t) for t in range(scene.frames)] for surface in scene.surfaces]
    for point in range(points):
        start = int(rng.integers(scene.frames))
        place = rng.uniform(0, 1, 2)
        on_objects = np.argwhere(scene.mask(start) > 0)
        if point % 2 and len(on_objects):
            row, column = on_objects[rng.integers(len(on_objects))]
            place = (place + (column, row)) / extent
        x, y = place * extent
        owner = _owner(scene, start, x, y)
        canonical = np.linalg.solve(matrices[owner][start], (x, y, 1.0))
        for t in range(scene.frames):
            x, y = (matrices[owner][t] @ canonical)[:2]
            places[point, t] = (x, y) / extent
            inside = 0 <= x < scene.width and 0 <= y < scene.height
            occluded[point, t] = not inside or _owner(scene, t, x, y) != owner
    return places, occluded


def _owner(scene: Scene, t: int, x: float, y: float) -> int:
    """Index of the surface that covers one place of the picture."""
    return int(scene.owners(t, Grid(x - 0.5, y - 0.5, 1.0, 1.0, 1, 1))[0, 0])


def tracks_bytes(scene: Scene) -> bytes:
    """The .npz file of a scene's tracks."""
    places, occluded = exact_tracks(scene)
    # Far outside the picture a place means nothing, and readers take numbers beyond 2 for pixels.
    places = np.clip(places, -1.0, 2.0).astype(np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, points=places, occluded=occluded)
    return buffer.getvalue()

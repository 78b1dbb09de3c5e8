"""Exact tracks: they follow the scene's flow, hide where another surface lies in front, and are read by the tracking probe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.synth import Scene, exact_tracks, write_davis

SIZE, FRAMES = (96, 128), 16


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.create(3, 2, size=SIZE, frames=FRAMES)


def test_visible_points_move_with_the_flow(scene: Scene) -> None:
    places, occluded = exact_tracks(scene, 40)
    pixels = places * (scene.width, scene.height)
    checked = 0
    for t in range(scene.frames - 1):
        flow = scene.flow(t, t + 1).astype(np.float64)
        owners = scene.owners(t, scene.picture_grid())
        for point in np.flatnonzero(~occluded[:, t]):
            x, y = pixels[point, t]
            column, row = int(x), int(y)
            around = owners[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            if len(np.unique(around)) == 1:  # away from borders, where the pixel's flow is another surface's
                # flow is affine and given at the pixel's centre, up to a pixel from the point
                assert np.abs(pixels[point, t + 1] - pixels[point, t] - flow[:, row, column]).max() < 0.15
                checked += 1
    assert checked > 80


def test_a_point_is_visible_where_its_surface_is_in_front(scene: Scene) -> None:
    places, occluded = exact_tracks(scene, 60)
    assert occluded.any() and not occluded.all(axis=1).any(), "each is seen at least where it starts"
    masks = [scene.mask(t) for t in range(scene.frames)]
    assert ((places < 0) | (places > 1)).any(), "some leave the picture"
    stable = 0
    for point in range(60):
        labels = set()
        for t in np.flatnonzero(~occluded[point]):
            x, y = places[point, t] * (scene.width, scene.height)
            assert 0 <= x < scene.width and 0 <= y < scene.height
            labels.add(int(masks[t][int(y), int(x)]))
        stable += len(labels) == 1
    assert stable >= 54, "a point keeps its object; only at a border may its pixel's centre be another's"


def test_half_of_the_points_are_on_objects_and_draws_repeat(scene: Scene) -> None:
    places, occluded = exact_tracks(scene, 60)
    masks = [scene.mask(t) for t in range(scene.frames)]
    on_object = []
    for point in range(60):
        seen = [
            masks[t][int(places[point, t, 1] * scene.height), int(places[point, t, 0] * scene.width)] > 0
            for t in np.flatnonzero(~occluded[point])
        ]
        on_object.append(np.mean(seen) > 0.5)
    assert np.mean(on_object[1::2]) > 0.9 > 2 * np.mean(on_object[::2])
    again = exact_tracks(Scene.create(3, 2, size=SIZE, frames=FRAMES), 60)
    assert np.array_equal(places, again[0]) and np.array_equal(occluded, again[1])
    assert not np.array_equal(places, exact_tracks(Scene.create(3, 9, size=SIZE, frames=FRAMES), 60)[0])


def test_tracks_lie_beside_the_sequences(tmp_path: Path) -> None:
    write_davis(tmp_path, 1, 5, frames=3, size=SIZE)
    path = tmp_path / "Tracks/synth-000.npz"
    with np.load(path, allow_pickle=False) as stored:
        assert stored["points"].shape == (64, 3, 2) and stored["occluded"].shape == (64, 3)
        assert np.abs(stored["points"]).max() <= 2
    before = path.read_bytes()
    path.unlink()
    write_davis(tmp_path, 1, 5, frames=3, size=SIZE)
    assert path.read_bytes() == before, "sequences of an earlier version get their tracks"

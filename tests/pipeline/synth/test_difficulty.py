"""Difficulty: at 0 not a byte is other than before there was one; towards 1 less and less is left of a picture."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.synth import Renderer, Scene, Style, generate, write_davis

SIZE = (96, 128)
BEFORE = {
    "JPEGImages/480p/synth-000/scene.json": "cdeb2830f0cdff0b",
    "Annotations/480p/synth-000/00001.png": "5c52df9263f0ff45",
    "Depth/480p/synth-000/00001.png": "3b41a6e0b8d56845",
}
FRAME_BEFORE = "a622b96794417270"


def scene_at(difficulty: float, index: int = 0) -> Scene:
    return Scene.create(7, index, size=SIZE, frames=4, style=Style(difficulty=difficulty))


def test_contents_and_masks_do_not_depend_on_it() -> None:
    easy, hard = scene_at(0), scene_at(0.9)
    np.testing.assert_array_equal(easy.mask(2), hard.mask(2))
    np.testing.assert_array_equal(easy.flow(0, 2), hard.flow(0, 2))
    assert [surface.motion for surface in easy.surfaces] == [surface.motion for surface in hard.surfaces]


def test_less_and_less_is_left() -> None:
    """The correlation of a frame with what it would be at 0 falls, and so does its contrast; at 1 it is one grey."""
    plain = Renderer(scene_at(0)).frame(1).astype(float)
    frames = [Renderer(scene_at(difficulty)).frame(1).astype(float) for difficulty in (0.2, 0.5, 0.8)]
    alike = [np.corrcoef(frame.ravel(), plain.ravel())[0, 1] for frame in frames]
    assert 1 > alike[0] > alike[1] > alike[2] > 0
    assert plain.std() > frames[1].std() > frames[2].std()
    assert len(np.unique(Renderer(scene_at(1)).frame(1))) == 1


def test_noise_is_new_in_every_frame_and_the_same_every_time() -> None:
    renderer = Renderer(scene_at(0.5))
    noise = [renderer.frame(t).astype(float) - 0.5 * renderer.drawn(t) for t in (0, 1)]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05
    np.testing.assert_array_equal(Renderer(scene_at(0.5)).frame(1), renderer.frame(1))


def test_a_record_names_it_only_where_there_is_one(tmp_path: Path) -> None:
    assert "difficulty" not in scene_at(0).record()["style"]
    hard = scene_at(0.5)
    assert Scene.from_record(json.loads(json.dumps(hard.record()))) == hard
    assert Scene.from_record(scene_at(0).record()) == scene_at(0)
    generate(tmp_path, 1, 0, 5, frames=3, size=SIZE)
    with pytest.raises(ValueError, match="style was"):
        generate(tmp_path, 1, 0, 5, frames=3, size=SIZE, style=Style(difficulty=0.5))


def test_default_bytes_are_those_of_before(tmp_path: Path) -> None:
    """Hashes taken from the version before there was a difficulty. Of pixels, not of JPEG files, whose library may change."""
    write_davis(tmp_path, 1, 5, frames=2, size=SIZE)
    for name, digest in BEFORE.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()[:16] == digest
    frame = Renderer(Scene.create(5, 0, size=SIZE, frames=4)).frame(1)
    assert hashlib.sha256(frame.tobytes()).hexdigest()[:16] == FRAME_BEFORE


@pytest.mark.parametrize("difficulty", [-0.1, 1.1, float("nan")])
def test_out_of_range(difficulty: float) -> None:
    with pytest.raises(ValueError, match="difficulty is"):
        Style(difficulty=difficulty)

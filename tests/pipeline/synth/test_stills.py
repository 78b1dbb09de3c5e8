"""Pictures with classes and in relief: depth and normals that belong together, the layouts that probes read, the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.synth import CLASSES, DEPTH_SCALE, Renderer, Scene, write_stills
from pipeline.synth.relief import intrinsics, relief_of
from pipeline.synth.stills import TEST, TRAIN, class_map
from pipeline.synth.write import HELD_OUT

SIZE = (96, 128)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stills")
    write_stills(out, 3, 5, size=SIZE)
    return out


def test_layout_and_content(made: Path) -> None:
    folders = made / "segmentation"
    names = (folders / "classes.txt").read_text().split()
    assert names == ["background", *(kind.name for kind in CLASSES)]
    for part, other, offset, count in (("train", "train", TRAIN, 2), ("val", "test", TEST, 1)):
        files = sorted((folders / part).glob("*.jpg"))
        assert [path.name for path in files] == [f"{index:05d}.jpg" for index in range(count)]
        for index in range(count):
            scene = Scene.create(5 + offset, index, size=SIZE, frames=1)
            classes = np.asarray(Image.open(folders / f"{part}annot" / f"{index:05d}.png"))
            np.testing.assert_array_equal(classes, class_map(scene, 0))
            depth = np.asarray(Image.open(made / "depth" / other / "depth" / f"{index:05d}.png"))
            assert np.abs(depth / DEPTH_SCALE - relief_of(scene, Renderer(scene), 0).depth).max() < 0.6 / DEPTH_SCALE
            assert (made / "depth" / other / "rgb" / f"{index:05d}.jpg").is_file()
    np.testing.assert_allclose(np.loadtxt(made / "depth/camera-intrinsics.txt"), intrinsics(scene))


def test_classes_are_those_of_the_objects() -> None:
    scene = Scene.create(3 + TRAIN, 1, size=SIZE, frames=1)
    kinds = {surface.label: surface.kind for surface in scene.surfaces if surface.is_object}
    mask, classes = scene.mask(0), class_map(scene, 0)
    assert (classes[mask == 0] == 0).all()
    for label, kind in kinds.items():
        assert set(classes[mask == label]) <= {1 + [one.name for one in CLASSES].index(kind)}
    assert len(kinds) >= 2


def test_normals_are_those_of_the_depth() -> None:
    """Back-projected neighbours of one surface lie on its plane, whose normal is the one that is told."""
    for index in range(3):
        scene = Scene.create(11 + TRAIN, index, size=SIZE, frames=1)
        relief, camera = relief_of(scene, Renderer(scene), 0), intrinsics(scene)
        rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
        rays = np.stack(
            [(columns - camera[0, 2]) / camera[0, 0], (rows - camera[1, 2]) / camera[1, 1], rows * 0 + 1.0], -1
        )
        place = rays * relief.depth[..., None].astype(float)
        owner = scene.owners(0, scene.picture_grid())
        across, down = place[:-1, 1:] - place[:-1, :-1], place[1:, :-1] - place[:-1, :-1]
        same = (owner[:-1, 1:] == owner[:-1, :-1]) & (owner[1:, :-1] == owner[:-1, :-1])
        for edge in (across, down):
            along = np.abs((edge * relief.normals[:-1, :-1]).sum(-1)) / np.linalg.norm(edge, axis=-1)
            assert along[same].max() < 1e-3
        assert (relief.normals[..., 2] < 0).all() and relief.depth.min() > 1 and relief.depth.max() < 20
        assert len(np.unique(relief.normals.reshape(-1, 3), axis=0)) == len(np.unique(owner))


def test_haze_tells_what_is_far() -> None:
    """The farthest tenth of a picture is nearer to the haze's colour than the nearest tenth."""
    for index in range(3):
        scene = Scene.create(12 + TRAIN, index, size=SIZE, frames=1)
        relief = relief_of(scene, Renderer(scene), 0)
        spread = relief.picture.astype(float).std(axis=-1) + np.abs(relief.picture.astype(float).mean(axis=-1) - 200)
        low, high = np.quantile(relief.depth, (0.1, 0.9))
        assert spread[relief.depth >= high].mean() < 0.8 * spread[relief.depth <= low].mean()


def test_same_arguments_same_bytes_and_other_ones_are_refused(made: Path, tmp_path: Path) -> None:
    write_stills(tmp_path, 3, 5, size=SIZE, workers=1)
    files = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all((made / path).read_bytes() == (tmp_path / path).read_bytes() for path in files)
    before = (tmp_path / "depth/train/rgb/00000.jpg").stat().st_mtime_ns
    (tmp_path / "depth/test/depth/00000.png").unlink()
    write_stills(tmp_path, 3, 5, size=SIZE)
    assert (tmp_path / "depth/test/depth/00000.png").read_bytes() == (made / "depth/test/depth/00000.png").read_bytes()
    assert (tmp_path / "depth/train/rgb/00000.jpg").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="seed was 5, now 6"):
        write_stills(tmp_path, 3, 6, size=SIZE)
    with pytest.raises(ValueError, match="at least two"):
        write_stills(tmp_path / "none", 1, 5, size=SIZE)
    assert not (tmp_path / "none").exists()


def test_no_picture_is_a_training_video() -> None:
    offsets = (0, HELD_OUT, TRAIN, TEST)
    contents = {
        Scene.create(seed + offset, i, size=SIZE).contents for seed in (0, 1) for offset in offsets for i in (0, 1)
    }
    assert len(contents) == 2 * 4 * 2

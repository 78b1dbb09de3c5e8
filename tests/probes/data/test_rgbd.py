"""RGB-D folders: layouts, units, the split, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probes.data import rgbd
from tests.probes.small_depth import slanted_wall, write_folder, write_pair


@pytest.mark.parametrize(
    ("picture", "depth"),
    [
        ("frame-{}.color.jpg", "frame-{}.depth.png"),
        ("rgb/{}.jpg", "depth/{}.png"),
        ("scene1/image/{}.png", "scene1/depth/{}.png"),
        ("test/bathroom/rgb_{}.jpg", "test/bathroom/sync_depth_{}.png"),
        ("JPEGImages/480p/synth-0/{}.jpg", "Depth/480p/synth-0/{}.png"),
    ],
)
def test_every_layout_pairs_by_one_rule(tmp_path: Path, picture: str, depth: str) -> None:
    for index in range(3):
        write_pair(tmp_path / picture.format(index), tmp_path / depth.format(index), slanted_wall(index))
    Image.new("L", (8, 8)).save(tmp_path / "notes.png")  # a picture without a depth map is no error
    pairs = rgbd.open_pairs(tmp_path, 1000)
    assert [pair.picture for pair in pairs] == [tmp_path / picture.format(index) for index in range(3)]
    assert [pair.depth for pair in pairs] == [tmp_path / depth.format(index) for index in range(3)]


def test_metres_of_the_centre_square_and_its_camera(tmp_path: Path) -> None:
    (pair, *_) = rgbd.open_pairs(write_folder(tmp_path, 2), 1000)
    depth = pair.depth_m()
    wall = slanted_wall(0)[:, 8:56]
    assert depth.shape == (48, 48) == pair.image().size
    assert (depth[:2, :12] == 0).all(), "0 and 65535 are no measurement"
    assert np.abs(depth[2:] - wall[2:]).max() <= 0.0005 + 1e-6
    camera = pair.square_camera()
    assert camera is not None and (camera.fx, camera.cx, camera.cy) == (60, 31.5 - 8, 23.5)
    assert np.array_equal(rgbd.open_pairs(tmp_path, 500)[0].depth_m(), 2 * depth)


def test_an_upright_picture_is_cut_at_its_middle_too(tmp_path: Path) -> None:
    wall = slanted_wall(0, 48, 80)
    write_pair(tmp_path / "a.rgb.png", tmp_path / "a.depth.png", wall)
    (tmp_path / "camera-intrinsics.txt").write_text("60 0 23.5\n0 60 39.5\n0 0 1")
    (pair,) = rgbd.open_pairs(tmp_path, 1000)
    camera = pair.square_camera()
    assert camera is not None and (camera.cx, camera.cy) == (23.5, 23.5)
    assert np.abs(pair.depth_m() - wall[16:64]).max() <= 0.0005 + 1e-6


def test_camera_is_the_nearest_above_the_picture(tmp_path: Path) -> None:
    write_pair(tmp_path / "a/rgb/0.png", tmp_path / "a/depth/0.png", slanted_wall(0))
    write_pair(tmp_path / "b/rgb/0.png", tmp_path / "b/depth/0.png", slanted_wall(1))
    assert rgbd.open_pairs(tmp_path, 1000)[0].square_camera() is None
    (tmp_path / "camera-intrinsics.txt").write_text("60 0 1\n0 60 1\n0 0 1")
    (tmp_path / "b/camera-intrinsics.txt").write_text("70 0 1\n0 70 1\n0 0 1")
    cameras = [pair.camera for pair in rgbd.open_pairs(tmp_path, 1000)]
    assert [camera.fx for camera in cameras if camera] == [60, 70]
    before = rgbd.fingerprint(rgbd.open_pairs(tmp_path, 1000))
    (tmp_path / "camera-intrinsics.txt").write_text("61 0 1\n0 61 1\n0 0 1")
    assert rgbd.fingerprint(rgbd.open_pairs(tmp_path, 1000)) != before
    (tmp_path / "camera-intrinsics.txt").write_text("61 0 1")
    with pytest.raises(ValueError, match="3x3 matrix"):
        rgbd.open_pairs(tmp_path, 1000)


def test_nyu_has_its_own_camera(tmp_path: Path) -> None:
    wall = slanted_wall(0, 640, 480)
    write_pair(tmp_path / "bath/rgb_0.png", tmp_path / "bath/sync_depth_0.png", wall)
    (pair,) = rgbd.open_pairs(tmp_path, 1000)
    camera = pair.square_camera()
    assert camera is not None and camera.fx == pytest.approx(518.857901) and camera.cx == pytest.approx(245.582449)
    assert pair.depth_m().shape == (480, 480)


def _names(root: Path) -> tuple[list[str], list[str]]:
    train, test = rgbd.split(rgbd.open_pairs(root, 1000), root)
    return [pair.name for pair in train], [pair.name for pair in test]


def test_split_takes_the_end_of_a_single_folder(tmp_path: Path) -> None:
    train, test = _names(write_folder(tmp_path, 10))
    assert len(train) == 7 and test == [f"frame-{index:03d}.color" for index in (7, 8, 9)]


def test_split_keeps_scenes_whole(tmp_path: Path) -> None:
    for scene in ("attic", "bath", "cellar"):
        for index in range(3):
            write_pair(
                tmp_path / scene / f"rgb/{index}.png", tmp_path / scene / f"depth/{index}.png", slanted_wall(index)
            )
    train, test = _names(tmp_path)
    assert {name.split("/")[0] for name in train} == {"attic", "bath"}
    assert {name.split("/")[0] for name in test} == {"cellar"}


@pytest.mark.parametrize(("folders", "tested"), [(("train", "val", "test"), "test"), (("train", "val"), "val")])
def test_split_follows_folders_called_train_and_test(tmp_path: Path, folders: tuple[str, ...], tested: str) -> None:
    for folder in folders:
        write_pair(tmp_path / folder / "s/rgb_1.png", tmp_path / folder / "s/sync_depth_1.png", slanted_wall(1))
    train, test = _names(tmp_path)
    assert [name.split("/")[0] for name in train] == ["train"] and [name.split("/")[0] for name in test] == [tested]


def test_refusals_name_the_layout(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"nowhere is not a directory: expected pictures beside 16-bit depth PNGs.*nyu_depth_v2"
    ):
        rgbd.open_pairs(tmp_path / "nowhere", 1000)
    with pytest.raises(ValueError, match="holds no depth map: expected"):
        rgbd.open_pairs(tmp_path, 1000)
    write_folder(tmp_path, 1)
    with pytest.raises(ValueError, match=r"1 pairs .* too few"):
        rgbd.split(rgbd.open_pairs(tmp_path, 1000), tmp_path)
    (tmp_path / "frame-009.depth.png").write_bytes((tmp_path / "frame-000.depth.png").read_bytes())
    with pytest.raises(ValueError, match=r"1 of 2 depth maps .* no picture, first .*frame-009.depth.png"):
        rgbd.open_pairs(tmp_path, 1000)
    Image.new("RGB", (64, 48)).save(tmp_path / "frame-009.color.png")
    Image.new("RGB", (64, 48)).save(tmp_path / "frame-009.rgb.png")
    with pytest.raises(ValueError, match="two pictures of one name"):
        rgbd.open_pairs(tmp_path, 1000)


def test_unreadable_and_unfitting_files_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path, 3)
    Image.new("L", (64, 48)).save(tmp_path / "frame-000.depth.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "frame-001.color.png")
    (tmp_path / "frame-002.depth.png").write_bytes(b"not a picture")
    (tmp_path / "frame-002.color.png").write_bytes(b"not a picture")
    eight_bits, other_view, broken = rgbd.open_pairs(tmp_path, 1000)
    with pytest.raises(ValueError, match=r"frame-000.depth.png has mode L: depth is read from PNGs of 16 bits"):
        eight_bits.depth_m()
    with pytest.raises(ValueError, match=r"64x64 .* 64x48: a picture and its depth map must show the same view"):
        other_view.image()
    for read in (broken.depth_m, broken.image):
        with pytest.raises(ValueError, match="frame-002"):
            read()

"""Flow files of the benchmarks: round trips, unknown pixels, damage."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.flow.files import read_flow, write_flow


def some_flow() -> NDArray[np.float32]:
    """Multiples of 1/64 px, so that every format holds them exactly."""
    return (np.random.default_rng(0).integers(-30000, 30000, (2, 5, 7)) / 64).astype(np.float32)


@pytest.mark.parametrize("name", ["a.flo", "a.png", "a.pfm"])
def test_round_trip(name: str, tmp_path: Path) -> None:
    flow = some_flow()
    write_flow(tmp_path / name, flow)
    again, valid = read_flow(tmp_path / name)
    assert again.dtype == np.float32 and np.array_equal(again, flow) and valid.all()


@pytest.mark.parametrize("name", ["a.flo", "a.png"])
def test_unknown_pixels(name: str, tmp_path: Path) -> None:
    flow = some_flow()
    flow[:, 1, 2] = np.nan
    known = np.ones((5, 7), np.bool_)
    known[4, 6] = False
    write_flow(tmp_path / name, flow, known)
    again, valid = read_flow(tmp_path / name)
    known[1, 2] = False
    assert np.array_equal(valid, known)
    assert np.array_equal(again, np.where(known, flow, 0))


def test_flo_bytes(tmp_path: Path) -> None:
    """Magic, width, height, then u and v of each pixel in rows from the top, little-endian."""
    path = tmp_path / "a.flo"
    path.write_bytes(struct.pack("<fii6f", 202021.25, 3, 1, 1, 2, 3, 4, 5, 2e9))
    flow, valid = read_flow(path)
    assert flow.tolist() == [[[1, 3, 0]], [[2, 4, 0]]] and valid.tolist() == [[True, True, False]]


def test_kitti_bytes(tmp_path: Path) -> None:
    """Red holds u, green v, blue says known; a value is (stored - 2^15) / 64."""
    stored_rgb = np.array([[[2**15 + 64, 2**15 - 32, 1], [0, 0, 0]]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), stored_rgb[..., ::-1])
    flow, valid = read_flow(tmp_path / "a.png")
    assert flow.tolist() == [[[1.0, 0.0]], [[-0.5, 0.0]]] and valid.tolist() == [[True, False]]


@pytest.mark.parametrize(("scale", "order"), [("-1.0", "<"), ("1", ">")])
def test_pfm_bytes(scale: str, order: str, tmp_path: Path) -> None:
    """Rows come from the bottom up, the third channel is unused, the sign of the scale gives the byte order."""
    values = struct.pack(f"{order}12f", 1, 2, 0, 3, 4, 0, 5, 6, 0, 7, 8, 0)
    (tmp_path / "a.pfm").write_bytes(f"PF\n2 2\n{scale}\n".encode() + values)
    flow, _ = read_flow(tmp_path / "a.pfm")
    assert flow.tolist() == [[[5, 7], [1, 3]], [[6, 8], [2, 4]]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.flo", b"PIEX" + bytes(16), "does not start with PIEH"),
        ("a.flo", b"PIEH" + struct.pack("<ii", 2, 2) + bytes(31), "2×2 px, which does not go with its 43 bytes"),
        ("a.flo", b"PIEH" + struct.pack("<ii", 2**30, 2**30), "does not go with its"),
        ("a.flo", b"PIEH" + struct.pack("<ii", -1, -1) + bytes(8), "does not go with its"),
        ("a.pfm", b"Pf\n2 2\n-1\n" + bytes(16), "three channels"),
        ("a.pfm", b"PF\n2 2\n-1\n" + bytes(40), "does not go with its"),
        ("a.png", b"not a image", "no KITTI flow"),
        ("a.txt", b"", "flow files end in"),
    ],
)
def test_damaged_files_are_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        read_flow(tmp_path / name)
    assert name in str(refused.value)


def test_ordinary_pictures_and_missing_files_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="16-bit"):
        read_flow(tmp_path / "a.png")
    with pytest.raises(ValueError, match="no flow file at"):
        read_flow(tmp_path / "absent.flo")


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    flow = some_flow()
    flow[0, 0, 0] = 600
    with pytest.raises(ValueError, match="±512 px"):
        write_flow(tmp_path / "a.png", flow)
    flow[0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="cannot say that a pixel is unknown"):
        write_flow(tmp_path / "a.pfm", flow)
    with pytest.raises(ValueError, match=r"\[2, H, W\]"):
        write_flow(tmp_path / "a.flo", flow[0])
    assert not list(tmp_path.iterdir())


def pixels(path: Path) -> NDArray[np.float32]:
    image = cv2.imread(str(path))
    assert image is not None, path
    return image.astype(np.float32)


def test_real_files_of_each_format(shared_dir: Path) -> None:
    """Sizes as published; warping by the ground truth must explain the second frame better than no motion."""
    root = shared_dir / "data" / "flow_gt"
    for truth, frames, size in (
        ("middlebury/other-gt-flow/Urban2/flow10.flo", "middlebury/other-data/Urban2/frame1{}.png", (480, 640)),
        ("opticalflowtoolkit/KITTI/flow_gt.png", "opticalflowtoolkit/KITTI/frame{}.png", (375, 1242)),
    ):
        flow, valid = read_flow(root / truth)
        assert flow.shape[1:] == size
        first_number = 0 if "1{}" in frames else 1
        first, second = (pixels(root / frames.format(first_number + i)) for i in (0, 1))
        y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
        warped = cv2.remap(second, x + flow[0], y + flow[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        assert np.abs(warped - first)[valid].mean() < 0.5 * np.abs(second - first)[valid].mean()

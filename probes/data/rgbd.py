"""Depth data on disk: from any folder of pictures and depth maps to pairs, split into those to train on and those to test on.

A picture and a depth map belong together when their paths under the root agree once the words that say which of the two they
are (rgb, color, image, depth, sync_depth, ...) are taken out, so these layouts, and more, are read by one rule:

    <root>/frame-000000.color.jpg           <root>/frame-000000.depth.png              7-Scenes, TSDF-Fusion
    <root>/rgb/0001.jpg                     <root>/depth/0001.png                      ScanNet, SUN RGB-D and most others
    <root>/test/bathroom/rgb_00045.jpg      <root>/test/bathroom/sync_depth_00045.png  NYUv2 as AdaBins and BTS pack it
    <root>/JPEGImages/480p/<seq>/00000.jpg  <root>/Depth/480p/<seq>/00000.png          the project's synthetic videos

Depth maps are PNGs of 16 or 32 bits, `depth_scale` steps per metre (1000: millimetres); 0 and the largest 16-bit number mean
"nothing measured". `camera-intrinsics.txt` (a 3x3 matrix in pixels, in the folder of a picture or above it) is what surface
normals need; NYUv2's own numbers stand in where depth maps are named sync_depth.

The split is fixed by the names: folders called train and test (or val) where both are there; else, with several folders,
the last tenths of the folders in order (`TEST_SHARE`); else the last tenths of the files. Never every n-th file: neighbours
in a video are nearly the same picture.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from probes.data.images import SUFFIXES, open_rgb
from probes.metrics.depth import Camera

TEST_SHARE = 0.3
DEPTH_WORD = re.compile(r"(?<![a-z])(?:sync_?|raw_?)?depths?(?![a-z])")
PICTURE_WORD = re.compile(r"(?<![a-z])(?:rgb|colou?rs?|images?|img|jpegimages)(?![a-z])")
NO_MEASUREMENT = 65535
CAMERA_FILE = "camera-intrinsics.txt"
NYU_CAMERA = Camera(fx=518.857901, fy=519.469611, cx=325.582449, cy=253.736166)
"""Of NYUv2's colour camera at 640x480, as its toolbox gives it."""
EXPECTED = (
    "expected pictures beside 16-bit depth PNGs of the same name, such as rgb/0001.jpg with depth/0001.png, "
    "frame-0.color.jpg with frame-0.depth.png, or rgb_0.jpg with sync_depth_0.png (NYUv2, "
    "at cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html)"
)


@dataclass(frozen=True)
class Pair:
    """One picture and what a depth sensor saw. camera: of the depth map; None where nobody wrote it down."""

    name: str
    picture: Path
    depth: Path
    depth_scale: float
    camera: Camera | None

    def image(self) -> Image.Image:
        """The centre square of the picture, RGB. Raises ValueError naming the file when it cannot be decoded."""
        return open_rgb(self.picture).crop(_square_box(*self._checked_size()))

    def depth_m(self) -> NDArray[np.float32]:
        """The centre square of the depth map in metres [s, s], 0 where nothing was measured."""
        left, top, right, bottom = _square_box(*size_of(self.depth))
        return depth_map(self.depth, self.depth_scale)[top:bottom, left:right]

    def square_camera(self) -> Camera | None:
        """The camera of `depth_m`."""
        if self.camera is None:
            return None
        left, top, _, _ = _square_box(*size_of(self.depth))
        return Camera(self.camera.fx, self.camera.fy, self.camera.cx - left, self.camera.cy - top)

    def _checked_size(self) -> tuple[int, int]:
        """(width, height) of the picture, which must have the aspect of the depth map."""
        picture, depth = size_of(self.picture), size_of(self.depth)
        if abs(picture[0] * depth[1] / (picture[1] * depth[0]) - 1) > 0.01:
            raise ValueError(
                f"{self.picture} is {picture[0]}x{picture[1]} and {self.depth} is {depth[0]}x{depth[1]}: "
                "a picture and its depth map must show the same view"
            )
        return picture


def _square_box(width: int, height: int) -> tuple[int, int, int, int]:
    """left, top, right, bottom of the centre square: columns 80..559 of 640x480, as in Probe3D."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) from the header alone."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"cannot read the picture {path}: {error}") from error


def depth_map(path: Path, depth_scale: float) -> NDArray[np.float32]:
    """Metres [h, w] of a whole depth PNG, 0 where nothing was measured.

    Raises
    ------
    ValueError: the file cannot be decoded, or holds colours or 8 bits (a depth map that was saved to be looked at).
    """
    try:
        with Image.open(path) as picture:
            mode, values = picture.mode, np.asarray(picture)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"cannot decode the depth map {path}: {error}") from error
    if values.ndim != 2 or values.dtype.itemsize < 2:
        raise ValueError(f"depth map {path} has mode {mode}: depth is read from PNGs of 16 bits (one channel)")
    return np.where((values > 0) & (values != NO_MEASUREMENT), values / depth_scale, 0).astype(np.float32)


def _key(relative: Path) -> str:
    """A path without its suffix and without the words for picture and depth."""
    text = relative.with_suffix("").as_posix().lower()
    return PICTURE_WORD.sub("", DEPTH_WORD.sub("", text))


def _by_key(paths: Iterable[Path], root: Path, what: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        other = found.setdefault(_key(path.relative_to(root)), path)
        if other != path:
            raise ValueError(f"two {what} of one name, {other} and {path}: give the folder that holds one of them")
    return found


def _camera_file(picture: Path, root: Path) -> Path | None:
    """The nearest one above a picture, no higher than the root."""
    for folder in picture.relative_to(root).parents:
        path = root / folder / CAMERA_FILE
        if path.is_file():
            return path
    return None


def read_camera(path: Path) -> Camera:
    """Raises ValueError for anything but a 3x3 matrix of intrinsics."""
    try:
        matrix = np.loadtxt(path)
    except ValueError as error:
        raise ValueError(f"{path} is no 3x3 matrix of camera intrinsics: {error}") from error
    if matrix.shape != (3, 3) or not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise ValueError(f"{path} is no 3x3 matrix of camera intrinsics: fx 0 cx / 0 fy cy / 0 0 1, in pixels")
    return Camera(*(float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2))))


def open_pairs(root: Path, depth_scale: float) -> list[Pair]:
    """Every pair under `root`, by name. Pictures without a depth map are left out.

    Raises
    ------
    ValueError: no folder, no pair, a depth map without a picture, names that fit twice, a damaged camera file.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is not a directory: {EXPECTED}")
    files = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in SUFFIXES and path.name[0] != "."]
    depth_files = [
        path for path in files if path.suffix.lower() == ".png" and DEPTH_WORD.search(_lower(path, root)) is not None
    ]
    depths = _by_key(depth_files, root, "depth maps")
    pictures = _by_key((path for path in files if path not in set(depth_files)), root, "pictures")
    if not depths:
        raise ValueError(f"{root} holds no depth map: {EXPECTED}")
    missing = [path for key, path in depths.items() if key not in pictures]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(depths)} depth maps in {root} have no picture, first {missing[0]}: {EXPECTED}"
        )
    cameras: dict[Path, Camera] = {}
    pairs = []
    for key, depth in depths.items():
        file = _camera_file(pictures[key], root)
        camera = None if file is None else cameras.setdefault(file, read_camera(file))
        if camera is None and "sync_depth" in depth.name and size_of(depth) == (640, 480):
            camera = NYU_CAMERA
        name = pictures[key].relative_to(root).with_suffix("").as_posix()
        pairs.append(Pair(name, pictures[key], depth, depth_scale, camera))
    return sorted(pairs, key=lambda pair: pair.name)


def _lower(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix().lower()


def split(pairs: Sequence[Pair], root: Path) -> tuple[list[Pair], list[Pair]]:
    """(train, test) by the rule of the module's docstring.

    Raises
    ------
    ValueError: nothing would be left to train on or to test on.
    """
    parts = [set(Path(_lower(pair.depth, root)).parts[:-1]) for pair in pairs]
    if any("train" in names for names in parts) and any(names & {"test", "val"} for names in parts):
        held_out = "test" if any("test" in names for names in parts) else "val"
        chosen = [held_out in names for names in parts]
        train = [pair for pair, names in zip(pairs, parts, strict=True) if "train" in names]
    else:
        groups = [_key(pair.picture.relative_to(root)).rpartition("/")[0] for pair in pairs]
        several = len(set(groups)) > 1
        names = sorted(set(groups)) if several else [pair.name for pair in pairs]
        tested = set(names[len(names) - math.ceil(TEST_SHARE * len(names)) :])
        chosen = [(group if several else pair.name) in tested for group, pair in zip(groups, pairs, strict=True)]
        train = [pair for pair, one in zip(pairs, chosen, strict=True) if not one]
    test = [pair for pair, one in zip(pairs, chosen, strict=True) if one]
    if not train or not test:
        raise ValueError(f"{len(pairs)} pairs in {root} are too few to train on some and test on others: {EXPECTED}")
    return train, test


def fingerprint(pairs: Sequence[Pair]) -> str:
    """Changes when files are added, removed, renamed or rewritten at another size in bytes, or a camera changes."""
    digest = hashlib.sha256()
    for pair in pairs:
        sizes = pair.picture.stat().st_size, pair.depth.stat().st_size
        digest.update(f"{pair.name}:{sizes}:{pair.camera};".encode())
    return digest.hexdigest()[:16]

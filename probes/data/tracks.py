"""Tracked points on disk: videos with the place of points in every frame, in the form of TAP-Vid-DAVIS.

    <root>.pkl                           the benchmark's own file: name → video, points, occluded
    <root>/<video>.npz                   the same three arrays, one file per video; or without `video` and with its frames in
    <root>/<video>/*.jpg                 a folder beside it, or
    <root>/JPEGImages/480p/<video>/*.jpg where DAVIS has them (then `<root>/Tracks/<video>.npz` is found as well)

    video     uint8 [t, h, w, 3], RGB
    points    float [n, t, 2], (x, y) as shares of width and height, from the upper left corner
    occluded  bool [n, t]

A video's frames are read when it is measured; the benchmark's file is one pickle, which has to be read whole (2.6 GB), and from
which only arrays are accepted.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from probes.data.images import list_images, open_rgb

Frames = Callable[[int], Image.Image]
EXPECTED = (
    "expected tapvid_davis.pkl, or a folder with <video>.npz files (points [n, t, 2] as shares of width and height, "
    "occluded [n, t], and video [t, h, w, 3] or frames in <video>/); TAP-Vid-DAVIS is at "
    "github.com/google-deepmind/tapnet"
)
FRAME_FOLDERS = ("{root}/{name}", "{root}/JPEGImages/480p/{name}", "{root}/JPEGImages/{name}")
HARMLESS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.numeric", "_frombuffer"),
}
"""What a pickle of arrays consists of. Anything else could run code of whoever wrote the file."""


@dataclass(frozen=True)
class TrackedVideo:
    """points_nt2: shares of width and height. visible_nt: where they can be seen. open: the frames, when they are needed;
    no closure, because a video goes to other processes."""

    name: str
    points_nt2: NDArray[np.float64]
    visible_nt: NDArray[np.bool_]
    open: Callable[[], Frames]

    @property
    def frames(self) -> int:
        return self.points_nt2.shape[1]

    def fingerprint(self) -> str:
        """Changes when a point moves or hides. Frames count through their number."""
        digest = hashlib.sha256(self.points_nt2.tobytes())
        digest.update(self.visible_nt.tobytes())
        return digest.hexdigest()[:16]


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in HARMLESS:
            raise ValueError(f"holds {module}.{name}, where only arrays belong")
        return super().find_class(module, name)


def open_tracks(root: Path) -> list[TrackedVideo]:
    """Every video of a folder or of the benchmark's file, by name. Raises ValueError saying what is wrong and what is expected."""
    if root.is_file():
        videos = _of_pickle(root)
    elif root.is_dir():
        files = sorted(root.glob("*.npz")) or sorted((root / "Tracks").glob("*.npz"))
        videos = [_of_file(root, path) for path in files]
    else:
        raise ValueError(f"{root} does not exist: {EXPECTED}")
    if not videos:
        raise ValueError(f"{root} holds no tracked video: {EXPECTED}")
    return videos


def _of_pickle(path: Path) -> list[TrackedVideo]:
    try:
        stored = _ArraysOnly(io.BytesIO(path.read_bytes())).load()
        entries = sorted(stored.items())
    except (pickle.UnpicklingError, ValueError, EOFError, AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as tracked videos ({error}): {EXPECTED}") from error
    videos = []
    for name, entry in entries:
        where = f"{path}, video {name!r}"
        if not isinstance(entry, dict) or "video" not in entry:
            raise ValueError(f"{where} has no array video: {EXPECTED}")
        videos.append(_video(str(name), entry, where, partial(_pixels_of, entry)))
    return videos


def _pixels_of(entry: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.asarray(entry["video"])


def _of_file(root: Path, path: Path) -> TrackedVideo:
    try:
        with np.load(path, allow_pickle=False) as stored:
            entry = {name: stored[name] for name in ("points", "occluded") if name in stored}
            inside = "video" in stored
    except (OSError, ValueError, BadZipFile) as error:
        raise ValueError(f"{path} is no readable .npz file ({error}): {EXPECTED}") from error
    if inside:
        return _video(path.stem, entry, str(path), partial(_pixels_in, path))
    folders = [Path(folder.format(root=root, name=path.stem)) for folder in FRAME_FOLDERS]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise ValueError(f"{path} has no array video, and {folders[0]} is not a directory: {EXPECTED}")
    files = list_images(folder)
    video = _video(path.stem, entry, str(path), None)
    if len(files) != video.frames:
        raise ValueError(f"{path} tracks points over {video.frames} frames and {folder} holds {len(files)}")
    return TrackedVideo(video.name, video.points_nt2, video.visible_nt, partial(_frames_of, files))


def _pixels_in(path: Path) -> NDArray[np.uint8]:
    return np.asarray(np.load(path, allow_pickle=False)["video"])


def _frames_of(files: Sequence[Path]) -> Frames:
    return lambda index: open_rgb(files[index])


def _video(
    name: str, entry: Mapping[str, Any], where: str, pixels: Callable[[], NDArray[np.uint8]] | None
) -> TrackedVideo:
    """A video from its arrays, checked; `pixels` reads its frames."""
    try:
        points, occluded = np.asarray(entry["points"], dtype=np.float64), np.asarray(entry["occluded"]).astype(bool)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where} lacks points or occluded ({error!r}): {EXPECTED}") from error
    if points.ndim != 3 or points.shape[2] != 2 or occluded.shape != points.shape[:2]:
        raise ValueError(f"{where}: points {points.shape} and occluded {occluded.shape}: {EXPECTED}")
    visible = ~occluded
    if not np.isfinite(points[visible]).all() or (np.abs(points[visible]) > 2).any():
        raise ValueError(f"{where}: points must be shares of width and height, not pixels: {EXPECTED}")

    opened = partial(_checked_frames, pixels, points.shape[1], where)
    return TrackedVideo(name, points, visible, opened)


def _checked_frames(pixels: Callable[[], NDArray[np.uint8]] | None, frames: int, where: str) -> Frames:
    assert pixels is not None
    video = pixels()
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3 or len(video) != frames:
        raise ValueError(f"{where}: video {video.dtype} {video.shape} for {frames} frames: {EXPECTED}")
    return lambda index: Image.fromarray(video[index])

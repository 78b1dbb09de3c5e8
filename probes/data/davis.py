"""Video segmentation data on disk: from a DAVIS directory to sequences of pictures and label maps.

    <root>/JPEGImages/<resolution>/<sequence>/00000.jpg ...
    <root>/Annotations/<resolution>/<sequence>/00000.png ...
    <root>/ImageSets/{2017,2016}/val.txt                          (optional: which sequences)

Annotations are palette PNGs whose indices are object labels (DAVIS-2017; 255 is void) or black and white masks (DAVIS-2016;
white is object 1). Everything that can be wrong with a folder is found by `open_sequence`, before a network runs; pixels are
read one frame at a time by the probe.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as Several
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from probes.data.images import SUFFIXES, list_images, open_labels, open_rgb, size_of

VOID = 255
WHERE = "DAVIS 2017 (TrainVal, 480p) is at davischallenge.org"
MOST_OBJECTS = 50
"""More labels than this on a frame mean a palette picture that was saved as grey levels, not fifty objects."""


@dataclass(frozen=True)
class Sequence:
    """One video with its annotation; `frames[i]` and `annotations[i]` belong together and have size (height, width)."""

    name: str
    frames: tuple[Path, ...]
    annotations: tuple[Path, ...]
    height: int
    width: int
    objects: int
    black_and_white: bool
    merged: bool = False

    def __len__(self) -> int:
        return len(self.frames)

    def image(self, index: int) -> Image.Image:
        """Frame `index` as an RGB picture. Raises ValueError naming the file when it cannot be decoded."""
        return open_rgb(self.frames[index], what="frame")

    def labels(self, index: int) -> NDArray[np.uint8]:
        """Label map uint8 [height, width] of frame `index`: 0 background and void, 1..`objects` the objects."""
        stored = open_labels(self.annotations[index])
        if self.black_and_white:
            return (stored >= 128).astype(np.uint8)
        labels = np.where(stored == VOID, 0, stored).astype(np.uint8)
        return (labels > 0).astype(np.uint8) if self.merged else labels

    def fingerprint(self) -> str:
        """Changes when frames or annotations are added, removed, renamed or rewritten at another size in bytes."""
        digest = hashlib.sha256(f"{self.height}x{self.width} objects {self.objects}".encode())
        for path in (*self.frames, *self.annotations):
            digest.update(f"{path.name}:{path.stat().st_size};".encode())
        return digest.hexdigest()[:16]


def _match(name: str, frames: tuple[Path, ...], annotations: tuple[Path, ...], folder: Path) -> tuple[Path, ...]:
    """The annotation of every frame, in frame order."""
    by_stem = {path.stem: path for path in annotations}
    missing = [frame for frame in frames if frame.stem not in by_stem]
    if missing and missing[0] == frames[0]:
        raise ValueError(
            f"sequence {name!r}: the first frame {frames[0].name} has no annotation {folder / (frames[0].stem + '.png')}, "
            "and the probe is fitted on it"
        )
    if missing:
        raise ValueError(
            f"sequence {name!r}: {len(missing)} of {len(frames)} frames have no annotation, first {missing[0].name}: "
            f"every frame needs one in {folder}"
        )
    strangers = sorted(set(by_stem) - {frame.stem for frame in frames})
    if strangers:
        raise ValueError(
            f"sequence {name!r}: {len(strangers)} annotations without a frame, first {by_stem[strangers[0]].name}: "
            "frames and annotations must carry the same names"
        )
    return tuple(by_stem[frame.stem] for frame in frames)


def open_sequence(root: Path, resolution: str, name: str, *, merge_objects: bool = False) -> Sequence:
    """Check the folders of one sequence and describe it.

    `merge_objects` makes one foreground object of all (the DAVIS-2016 task on DAVIS-2017 files).

    Raises
    ------
    ValueError: missing folder, frame or annotation, sizes that differ, fewer than three frames, no object on frame 0.
    """
    frame_folder = root / "JPEGImages" / resolution / name
    label_folder = root / "Annotations" / resolution / name
    for folder, what in ((frame_folder, "frames"), (label_folder, "annotations")):
        if not folder.is_dir():
            raise ValueError(f"sequence {name!r} has no {what}: {folder} is not a directory")
    frames = list_images(frame_folder)
    if len(frames) < 3:
        raise ValueError(
            f"sequence {name!r} has {len(frames)} frames: the probe needs at least 3 (it is fitted on the first, "
            "and the first and the last are not scored)"
        )
    annotations = _match(name, frames, list_images(label_folder, (".png",)), label_folder)
    height, width = size_of(frames[0])
    for path in (*frames, *annotations):
        if (size := size_of(path)) != (height, width):
            raise ValueError(
                f"sequence {name!r}: {path} is {size[1]}x{size[0]}, but {frames[0].name} is {width}x{height}: "
                "all frames and annotations of a sequence have one size"
            )
    objects, black_and_white = _objects_of(name, annotations[0])
    merged = merge_objects and not black_and_white
    return Sequence(name, frames, annotations, height, width, 1 if merged else objects, black_and_white, merged)


def _objects_of(name: str, first: Path) -> tuple[int, bool]:
    """(number of objects, whether white means object 1) as the first annotation tells."""
    values = set(np.unique(open_labels(first)).tolist())
    if values <= {0, VOID} and VOID in values:
        return 1, True
    objects = max(values - {VOID}, default=0)
    if objects == 0:
        raise ValueError(f"sequence {name!r}: no object on the first frame, {first} is empty: there is nothing to fit")
    if objects > MOST_OBJECTS:
        raise ValueError(
            f"sequence {name!r}: {first} holds labels up to {objects}: it looks like a palette picture saved as grey "
            "levels; label maps hold the object numbers 1, 2, ... themselves"
        )
    return objects, False


def find_resolution(root: Path, wanted: str | None = None) -> str:
    """The resolution folder under JPEGImages: `wanted`, else 480p, else the only one there is."""
    pictures = root / "JPEGImages"
    if not pictures.is_dir() or not (root / "Annotations").is_dir():
        raise ValueError(
            f"{root} is not a DAVIS directory: expected {root}/JPEGImages/480p/<sequence>/*.jpg and "
            f"{root}/Annotations/480p/<sequence>/*.png; {WHERE}"
        )
    present = sorted(path.name for path in pictures.iterdir() if path.is_dir())
    if wanted is not None and wanted not in present:
        raise ValueError(f"no resolution {wanted!r} in {pictures}: it holds {', '.join(present) or 'nothing'}")
    choice = wanted or ("480p" if "480p" in present else present[0] if len(present) == 1 else None)
    if choice is None:
        raise ValueError(f"{pictures} holds {', '.join(present) or 'nothing'}: name one of them with --resolution")
    return choice


def read_list(path: Path) -> list[str]:
    """Sequence names of a list file: one name a line, or the `frame annotation` lines of DAVIS-2016; `#` comments."""
    names: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = line.split("#", 1)[0].strip()
        if not entry:
            continue
        first = entry.split()[0]
        name = Path(first).parent.name if Path(first).suffix.lower() in SUFFIXES else first
        if name not in names:
            names.append(name)
    if not names:
        raise ValueError(f"the list {path} names no sequence")
    return names


def _names(
    root: Path, resolution: str, year: int | None, list_file: Path | None, chosen: Several[str] | None
) -> list[str]:
    """Which sequences: those given, a list file's, the benchmark's validation list, or every folder."""
    if chosen:
        return list(dict.fromkeys(chosen))
    if list_file is not None:
        return read_list(list_file)
    years = (2017, 2016) if year is None else (year,)
    for candidate in (root / "ImageSets" / str(y) / "val.txt" for y in years):
        if candidate.is_file():
            return read_list(candidate)
    return sorted(path.name for path in (root / "JPEGImages" / resolution).iterdir() if path.is_dir())


def open_davis(
    root: Path,
    *,
    resolution: str | None = None,
    year: int | None = None,
    list_file: Path | None = None,
    sequences: Several[str] | None = None,
) -> list[Sequence]:
    """The sequences of a DAVIS directory, checked, in the order of the list that names them.

    `sequences` wins over `list_file`, which wins over ImageSets/<year>/val.txt (2017 before 2016), else every folder.
    `year=2016` also merges all objects of a sequence into one, as that year's task does.

    Raises
    ------
    ValueError: no DAVIS layout, unknown names, or whatever `open_sequence` finds.
    """
    resolution = find_resolution(root, resolution)
    names = _names(root, resolution, year, list_file, sequences)
    present = {path.name for path in (root / "JPEGImages" / resolution).iterdir() if path.is_dir()}
    absent = [name for name in names if name not in present]
    if absent:
        raise ValueError(
            f"{len(absent)} of {len(names)} sequences are not in {root}/JPEGImages/{resolution}, first {absent[0]!r}: "
            f"it holds {', '.join(sorted(present)[:8]) or 'nothing'}{', ...' if len(present) > 8 else ''}; "
            "choose with --sequences"
        )
    if not names:
        raise ValueError(f"no sequence in {root}/JPEGImages/{resolution}")
    return [open_sequence(root, resolution, name, merge_objects=year == 2016) for name in names]

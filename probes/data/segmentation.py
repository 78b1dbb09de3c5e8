"""Semantic segmentation data on disk: pairs of a picture and a label map, and how stored labels become classes.

`segmentation_layouts.py` finds the pairs of a data set; `checked` looks for what is wrong with them before a network runs;
pixels are read picture by picture (`Split.picture`), so that a data set of any size streams through.

Pictures and labels come out as squares: the shorter side is brought to the side of the square (pictures with antialiasing,
labels by the nearest pixel) and the middle is cut out, as FeatUp and FlowFeat do on COCO-Stuff.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from probes.data.images import open_labels, open_rgb, size_of

IGNORED = 255
"""The class of pixels that belong to none."""
OUTSIDE = -1
MOST_CHECKED = 2000
"""Pairs of a split that are read before a network runs, evenly spread; the others are checked as they are reached."""


@dataclass(frozen=True)
class Pair:
    """One picture with its label map, and the name that reports show."""

    name: str
    image: Path
    labels: Path


@dataclass(frozen=True)
class LabelTable:
    """classes: their names, by number. of_stored: the class (or IGNORED) of every stored label that is allowed."""

    classes: tuple[str, ...]
    of_stored: Mapping[int, int]

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) < IGNORED:
            raise ValueError(f"a class list has 1 to {IGNORED - 1} classes, not {len(self.classes)}")

    @staticmethod
    def plain(classes: Sequence[str], ignored: Sequence[int] = (IGNORED,)) -> LabelTable:
        """Stored labels are the classes themselves, 0, 1, ...; those of `ignored` belong to none."""
        table = {label: label for label in range(len(classes))}
        return LabelTable(tuple(classes), {**table, **dict.fromkeys(ignored, IGNORED)})

    def convert(self, stored_hw: NDArray[np.uint8], where: Path) -> NDArray[np.uint8]:
        """Classes [H, W] of stored labels. Raises ValueError naming the file and a label outside the class list."""
        table = np.full(256, OUTSIDE, dtype=np.int16)
        for stored, label in self.of_stored.items():
            table[stored] = label
        classes = table[stored_hw]
        outside = classes == OUTSIDE
        if outside.any():
            values = sorted(set(stored_hw[outside].tolist()))
            raise ValueError(
                f"{where} holds label {values[0]} at {int(outside.sum())} pixels, outside the class list of "
                f"{len(self.classes)} ({self._allowed()}): is it the right list? --ignored-labels names labels to leave out"
            )
        return classes.astype(np.uint8)

    def _allowed(self) -> str:
        scored = [stored for stored, label in self.of_stored.items() if label != IGNORED]
        ignored = sorted(stored for stored, label in self.of_stored.items() if label == IGNORED)
        return f"labels {min(scored)} to {max(scored)}, ignored {', '.join(map(str, ignored)) or 'none'}"


@dataclass(frozen=True)
class Split:
    """The pairs of one part of a data set."""

    pairs: tuple[Pair, ...]
    table: LabelTable

    def __len__(self) -> int:
        return len(self.pairs)

    def picture(self, index: int, side_px: int) -> Image.Image:
        """RGB, side_px x side_px."""
        return square(open_rgb(self.pairs[index].image), side_px, Image.Resampling.BILINEAR)

    def labels(self, index: int, side_px: int) -> NDArray[np.uint8]:
        """Classes uint8 [side_px, side_px]. Raises ValueError for a label map of another size than its picture's."""
        pair = self.pairs[index]
        stored = open_labels(pair.labels)
        height, width = size_of(pair.image)
        if stored.shape != (height, width):
            raise ValueError(
                f"{pair.labels} is {stored.shape[1]}x{stored.shape[0]}, but its picture {pair.image.name} is {width}x{height}"
            )
        classes = Image.fromarray(self.table.convert(stored, pair.labels))
        return np.asarray(square(classes, side_px, Image.Resampling.NEAREST))


@dataclass(frozen=True)
class SegmentationData:
    """A data set: what a probe learns from, and what it is scored on. layout: by whose name it was found."""

    layout: str
    root: Path
    train: Split
    scored: Split
    scored_name: str

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.table.classes

    def fingerprint(self) -> str:
        """Changes when pictures, label maps or classes are added, removed, renamed or rewritten at another size in bytes."""
        digest = hashlib.sha256(repr((self.classes, sorted(self.train.table.of_stored.items()))).encode())
        for split in (self.train, self.scored):
            for pair in split.pairs:
                digest.update(f"{pair.name}:{pair.image.stat().st_size}:{pair.labels.stat().st_size};".encode())
            digest.update(b"|")
        return digest.hexdigest()[:16]

    def checked(self) -> SegmentationData:
        """Itself, when its label maps can be read, fit their pictures and class list, and label something.

        Raises
        ------
        ValueError: one of them does not, naming the file.
        """
        for split, what in ((self.train, "train"), (self.scored, self.scored_name)):
            step = max(1, -(-len(split) // MOST_CHECKED))
            labelled = [bool((split.labels(index, 64) != IGNORED).any()) for index in range(0, len(split), step)]
            if not any(labelled):
                raise ValueError(
                    f"every label of the {what} split of {self.root} is ignored: there is nothing to score"
                )
        return self


def square(image: Image.Image, side_px: int, resampling: Image.Resampling) -> Image.Image:
    """The middle of a picture whose shorter side is brought to `side_px`."""
    scale = side_px / min(image.width, image.height)
    width, height = (max(side_px, round(length * scale)) for length in (image.width, image.height))
    left, top = (width - side_px) // 2, (height - side_px) // 2
    return image.resize((width, height), resampling).crop((left, top, left + side_px, top + side_px))


def paired(
    images: Sequence[Path], labels_of: Mapping[str, Path], stem_of: Mapping[Path, str], where: str
) -> list[Pair]:
    """Every picture with the label map of its stem.

    Raises
    ------
    ValueError: there is no picture, or one has no label map.
    """
    if not images:
        raise ValueError(f"no pictures in {where}")
    missing = [path for path in images if stem_of[path] not in labels_of]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(images)} pictures in {where} have no label map, first {missing[0].name}: "
            "a picture and its label map carry the same name"
        )
    return [Pair(stem_of[path], path, labels_of[stem_of[path]]) for path in images]

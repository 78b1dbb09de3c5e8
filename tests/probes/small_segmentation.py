"""Writes miniature segmentation data sets whose classes differ in colour alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLORS = np.array([(30, 30, 30), (220, 30, 30), (30, 30, 220)], np.uint8)
"""Of classes 0, 1 and 2."""
SIZE = (64, 80)


def labels_of(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A red and a blue block on dark ground, and a frame of unlabelled pixels two wide; classes 0 to 2, 255."""
    rng = np.random.default_rng(seed)
    height, width = size
    labels = np.zeros(size, np.uint8)
    y, x = rng.integers(8, height - 40), rng.integers(16, width // 2 - 8)
    labels[y : y + 24, x : x + 16] = 1
    labels[y + 8 : y + 32, x + 20 : x + 36] = 2
    for edge in (labels[:2], labels[-2:], labels[:, :2], labels[:, -2:]):
        edge[:] = 255
    return labels


def write_pair(image: Path, labels: Path, seed: int, *, stored: dict[int, int] | None = None) -> None:
    """A picture and its label map. stored: the number in the file by class, where they differ."""
    classes = labels_of(seed)
    noise = np.random.default_rng(seed).integers(0, 20, (*SIZE, 3))
    pixels = COLORS[np.where(classes == 255, 0, classes)] + noise
    for path in (image, labels):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(image)
    numbers = classes.copy()
    for label, number in (stored or {}).items():
        numbers[classes == label] = number
    Image.fromarray(numbers).save(labels)


def write_folders(root: Path, *, train: int = 4, val: int = 3) -> None:
    for split, count, first in (("train", train, 0), ("val", val, 100)):
        for number in range(count):
            write_pair(root / split / f"{number:03}.png", root / f"{split}annot" / f"{number:03}.png", first + number)
    (root / "classes.txt").write_text("ground\nred\nblue\n")

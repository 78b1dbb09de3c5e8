"""Writes a miniature DAVIS directory whose objects differ in colour alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH, FRAMES = 64, 96, 6


def write_labels(path: Path, labels: np.ndarray) -> None:
    """A palette PNG whose indices are the labels."""
    picture = Image.fromarray(labels.astype(np.uint8), mode="P")
    picture.putpalette([channel for index in range(256) for channel in (index, 255 - index, index * 7 % 256)])
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def write_sequence(
    root: Path, name: str, *, frames: int = FRAMES, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> None:
    """Two squares, one red and one blue, that drift over grey noise: colour alone separates them."""
    rng = np.random.default_rng(seed)
    height, width = size
    pictures = root / "JPEGImages" / "480p" / name
    pictures.mkdir(parents=True, exist_ok=True)
    for t in range(frames):
        image = rng.integers(100, 120, (height, width, 3), dtype=np.uint8)
        labels = np.zeros((height, width), np.uint8)
        for label, (y, x, colour) in enumerate(
            [(8, 8 + 3 * t, (220, 20, 20)), (32, 60 - 3 * t, (20, 20, 220))], start=1
        ):
            image[y : y + 24, x : x + 24] = colour
            labels[y : y + 24, x : x + 24] = label
        Image.fromarray(image).save(pictures / f"{t:05d}.jpg", quality=95)
        write_labels(root / "Annotations" / "480p" / name / f"{t:05d}.png", labels)

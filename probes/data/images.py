"""Pictures on disk to what an encoder takes: found, opened, and resized to a size it accepts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

SUFFIXES = (".jpg", ".jpeg", ".png")
PAPER_HEIGHT_PX = 480
PAPER_WIDTH_STEP_PX = 64


def list_images(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> tuple[Path, ...]:
    """The pictures directly in a folder, sorted; hidden files are no pictures."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith("."))
    return tuple(sorted(found))


def list_images_below(folder: Path) -> tuple[Path, ...]:
    """The pictures in a folder and in the folders below, sorted, hidden files apart."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return tuple(sorted(found))


def open_rgb(path: Path, *, what: str = "picture", upright: bool = False) -> Image.Image:
    """A whole picture as RGB. upright: turned as its EXIF says; data with labels keep the stored pixels, as the labels do.

    Raises ValueError naming the file when it cannot be decoded.
    """
    try:
        with Image.open(path) as picture:
            return (ImageOps.exif_transpose(picture) if upright else picture).convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(f"cannot decode the {what} {path}: {error}") from error


def open_labels(path: Path) -> NDArray[np.uint8]:
    """The numbers of a label map [H, W]: palette indices, or grey values; never colours. Raises ValueError naming the file."""
    try:
        with Image.open(path) as picture:
            if picture.mode in ("P", "L"):
                return np.asarray(picture, dtype=np.uint8)
            if picture.mode == "1":
                return np.asarray(picture, dtype=np.uint8) * 255
            values = np.asarray(picture)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"cannot decode the annotation {path}: {error}") from error
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
        if (colours != colours[..., :1]).any():
            raise ValueError(
                f"annotation {path} is a colour picture (mode {picture.mode}): save label maps as palette PNGs"
            )
        values = colours[..., 0]
    if values.min() < 0 or values.max() > 255:
        raise ValueError(f"annotation {path} holds labels up to {values.max()}: at most 255 fit the format")
    return values.astype(np.uint8)


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) from the header alone. Raises ValueError naming the file."""
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"cannot read the picture {path}: {error}") from error


def input_size(height_px: int, frame_height: int, frame_width: int, multiple: int) -> tuple[int, int]:
    """(H, W) a frame is resized to before an encoder, near `height_px` and the frame's aspect.

    H is the largest fitting multiple of `multiple`, twice a ViT's patch: 480 for patch 16, 476 for 14. W is rounded down to
    a multiple of 64 as in the paper (832 for 854x480), or of `multiple` where 64 is none (840 for patch 14) and below the
    paper's height, where a step of 64 would squeeze the picture visibly.

    Raises
    ------
    ValueError: `height_px` is below `multiple`.
    """
    height = height_px // multiple * multiple
    if height == 0:
        raise ValueError(f"height {height_px} is too small: the encoder takes multiples of {multiple} pixels")
    fits = height_px >= PAPER_HEIGHT_PX and PAPER_WIDTH_STEP_PX % multiple == 0
    step = PAPER_WIDTH_STEP_PX if fits else multiple
    return height, max(step, height * frame_width // (frame_height * step) * step)


def batch_of(images: Sequence[Image.Image], size_hw: tuple[int, int], device: torch.device) -> Tensor:
    """uint8 [B, H, W, 3] of RGB pictures resized to (H, W), with antialiasing as in training."""
    resized = [np.asarray(image.resize((size_hw[1], size_hw[0]), Image.Resampling.BILINEAR)) for image in images]
    return torch.from_numpy(np.stack(resized)).to(device)

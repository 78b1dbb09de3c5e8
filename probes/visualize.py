"""Features of pictures of your own: a file or a directory in, one PNG per picture out.

Each PNG shows, side by side, the picture, the encoder's token grid and the decoder's map, the two as three principal
components in red, green and blue.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from common.feature_colors import ColorBasis
from probes.data.davis import PICTURES
from probes.drawing import feature_picture
from probes.tasks.vos import input_size, network_input
from shards.files import write_atomic

if TYPE_CHECKING:
    from trainer import FlowFeat

GAP_PX = 6


def find_pictures(path: Path) -> list[Path]:
    """The file itself, or the pictures of a directory. Raises ValueError when there is none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"no picture or directory {path}")
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES and not file.name.startswith("."))
    if not found:
        raise ValueError(f"no pictures ({', '.join(PICTURES)}) in {path}")
    return found


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"cannot decode the picture {path}: {error}") from error


def _beside(panels: list[Image.Image]) -> Image.Image:
    width, height = panels[0].size
    canvas = Image.new("RGB", (len(panels) * (width + GAP_PX) - GAP_PX, height), "white")
    for number, panel in enumerate(panels):
        canvas.paste(panel, (number * (width + GAP_PX), 0))
    return canvas


def draw(model: FlowFeat, path: Path, out: Path, *, height_px: int, joint: bool = False) -> list[Path]:
    """Write `<out>/<stem>_features.png` for every picture of `path` and return the files.

    joint: take the colours of the first picture for all, so that frames of one video can be compared.

    Raises
    ------
    ValueError: no picture, a picture that cannot be decoded, two of one name, or a height below twice the patch.
    """
    files = find_pictures(path)
    stems = [file.stem for file in files]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise ValueError(f"two pictures in {path} are called {twice!r}: their outputs would overwrite each other")
    device = next(model.parameters()).device
    bases: list[ColorBasis] = []
    written = []
    for file in files:
        image = _open(file)
        size_hw = input_size(height_px, image.height, image.width, model.patch_size)
        low, high = model(network_input([image], size_hw, model, device))
        if not (joint and bases):
            bases = [ColorBasis.fit(low[0]), ColorBasis.fit(high[0])]
        size = (size_hw[1], size_hw[0])
        panels = [image.resize(size, Image.Resampling.BILINEAR)]
        panels += [feature_picture(basis, one[0], size) for basis, one in zip(bases, (low, high), strict=True)]
        buffer = io.BytesIO()
        _beside(panels).save(buffer, "PNG")
        written.append(out / f"{file.stem}_features.png")
        write_atomic(written[-1], buffer.getvalue())
    return written

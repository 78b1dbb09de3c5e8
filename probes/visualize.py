"""Features of pictures of your own: a file or a directory in, one PNG per picture out.

Each PNG shows, side by side, the picture, the encoder's token grid and the decoder's map, the two as three principal
components in red, green and blue.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from common.feature_colors import ColorBasis
from common.progress import ProgressDisplay
from probes.data.images import SUFFIXES, batch_of, input_size, list_images, open_rgb
from probes.drawing import feature_picture, shown_map
from probes.sources.features import features_of
from probes.sources.flowfeat import Checkpoint
from probes.sources.table import create_sources
from shards.files import write_atomic

SHOWN = ("encoder", "flowfeat")
GAP_PX = 6


def find_pictures(path: Path) -> list[Path]:
    """The file itself, or the pictures of a directory.

    Raises ValueError when there is none, and for two whose outputs would have one name.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"no picture or directory {path}")
    found = list(list_images(path))
    if not found:
        raise ValueError(f"no pictures ({', '.join(SUFFIXES)}) in {path}")
    stems = [file.stem for file in found]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise ValueError(f"two pictures in {path} are called {twice!r}: their outputs would overwrite each other")
    return found


def draw(
    checkpoint: Checkpoint,
    files: Sequence[Path],
    out: Path,
    *,
    height_px: int,
    joint: bool = False,
    display: ProgressDisplay,
) -> list[Path]:
    """Write `<out>/<stem>_features.png` for every picture and return the files written.

    A picture that cannot be decoded is named on the display and left out. joint: take the colours of the first picture for
    all, so that frames of one video can be compared.

    Raises
    ------
    ValueError: a height that the encoder does not take.
    """
    sources = create_sources(SHOWN, checkpoint)
    device = next(checkpoint.model.parameters()).device
    bases: dict[str, ColorBasis] = {}
    written = []
    display.begin(len(files))
    for file in files:
        try:
            image = open_rgb(file)
        except ValueError as error:
            display.say(f"skipped: {error}")
            display.advance()
            continue
        size_hw = input_size(height_px, image.height, image.width, checkpoint.encoder.size_multiple)
        size = (size_hw[1], size_hw[0])
        panels = [image.resize(size, Image.Resampling.BILINEAR)]
        for source, features in features_of(sources, batch_of([image], size_hw, device)):
            shown = shown_map(features)
            if not joint or source.name not in bases:
                bases[source.name] = ColorBasis.fit(shown)
            panels.append(feature_picture(bases[source.name], shown, size))
        buffer = io.BytesIO()
        _beside(panels).save(buffer, "PNG")
        written.append(out / f"{file.stem}_features.png")
        write_atomic(written[-1], buffer.getvalue())
        display.advance()
    return written


def _beside(panels: list[Image.Image]) -> Image.Image:
    width, height = panels[0].size
    canvas = Image.new("RGB", (len(panels) * (width + GAP_PX) - GAP_PX, height), "white")
    for number, panel in enumerate(panels):
        canvas.paste(panel, (number * (width + GAP_PX), 0))
    return canvas

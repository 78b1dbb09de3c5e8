"""Pictures of a report: drawn by a task, kept in `<report>/pictures/<task>/<made of>/<unit>/`, clips beside them.

Pictures that are looked at as a whole are small JPEGs; crops (`crop`) keep every pixel, as PNG. "Made of" is a short digest of
weights and protocol, so that runs of several models into one report keep their own.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from common.clip import write_clip
from probes.report.records import Picture
from probes.sources.features import Source
from probes.task import CLIP_FPS
from shards.files import write_atomic

FORBIDDEN = re.compile(r"[/\\%\x00-\x1f]|^\.")
"""What a name from outside may not bring into a file name."""


def file_name(text: str) -> str:
    """A name without what could lead out of its folder; different texts give different names."""
    return FORBIDDEN.sub(lambda found: f"%{ord(found[0]):02X}", text)


class PictureFolder:
    """The `PictureSink` of one unit: writes files and remembers them in `saved`. made_of: see the module's docstring."""

    def __init__(self, out: Path, task: str, unit: str, made_of: str = "") -> None:
        self.out = out
        self.folder = Path("pictures", *map(file_name, filter(None, (task, made_of, unit))))
        self.saved: list[Picture] = []

    def save(self, group: str, caption: str, image: Image.Image, source: Source | None = None) -> None:
        relative = self._place(group, caption, source, ".jpg")
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=88, subsampling=0)
        write_atomic(self.out / relative, buffer.getvalue())

    def crop(self, group: str, caption: str, image: Image.Image, source: Source | None = None) -> None:
        relative = self._place(group, caption, source, ".png")
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        write_atomic(self.out / relative, buffer.getvalue())

    def clip(self, group: str, caption: str, images: Sequence[Image.Image], source: Source | None = None) -> None:
        relative = self._place(group, caption, source, ".mp4")
        write_clip(self.out / relative, [np.asarray(image) for image in images], CLIP_FPS)

    def _place(self, group: str, caption: str, source: Source | None, suffix: str) -> Path:
        """Where a picture goes, noted down."""
        owner = "" if source is None else source.name
        parts = [*filter(None, [group, owner]), caption]
        relative = self.folder / (".".join(map(file_name, parts)) + suffix)
        self.saved.append(Picture(group, caption, owner, relative.as_posix()))
        return relative

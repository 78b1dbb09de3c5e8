"""Pictures of a report: drawn by a task, kept as small JPEG files in `<report>/pictures/<task>/<unit>/`."""

from __future__ import annotations

import io
import re
from pathlib import Path

from PIL import Image

from probes.report.store import Picture
from probes.sources.features import Source
from shards.files import write_atomic

FORBIDDEN = re.compile(r"[/\\%\x00-\x1f]|^\.")
"""What a name from outside may not bring into a file name."""


def file_name(text: str) -> str:
    """A name without what could lead out of its folder; different texts give different names."""
    return FORBIDDEN.sub(lambda found: f"%{ord(found[0]):02X}", text)


class PictureFolder:
    """The `PictureSink` of one unit: writes files and remembers them in `saved`."""

    def __init__(self, out: Path, task: str, unit: str) -> None:
        self.out = out
        self.folder = Path("pictures") / file_name(task) / file_name(unit)
        self.saved: list[Picture] = []

    def save(self, group: str, caption: str, image: Image.Image, source: Source | None = None) -> None:
        owner = "" if source is None else source.name
        parts = [group, *filter(None, [owner]), caption]
        relative = self.folder / (".".join(map(file_name, parts)) + ".jpg")
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=88, subsampling=0)
        write_atomic(self.out / relative, buffer.getvalue())
        self.saved.append(Picture(group, caption, owner, relative.as_posix()))

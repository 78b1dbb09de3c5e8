"""Videos that are folders of images, as one more frame source.

Comes in: a folder with one JPEG (or PNG) per frame. Goes out: a `FrameSource` whose times have a constant rate; EXIF rotation is ignored.
An image that is damaged ends the whole video with a Reject that names it: its neighbours would otherwise pair across a gap.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from pipeline.video.rejects import LARGEST_FRAME_PIXELS, Reject

JPEG_MAGIC = b"\xff\xd8"


class FolderFrames:
    """The images of a folder, in the order of their names with numbers compared as numbers.

    JPEG where there is any, else PNG. Raises Reject("missing" | "unreadable" | "not_a_video" | "too_short").
    """

    engine = "frames"

    def __init__(self, folder: Path, fps: float) -> None:
        if not fps > 0:
            raise ValueError(f"frame folders need a positive frame rate, got {fps} for {folder}")
        self._pictures = _pictures(folder)
        if not self._pictures:
            raise Reject("too_short", f"{folder} holds no .jpg, .jpeg or .png picture")
        self.times_s = np.arange(len(self._pictures)) / fps
        self._size: tuple[int, int] | None = None

    def fetch(self, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(index, frame) for the given indices. Raises Reject("broken_frame")."""
        for index in indices:
            picture = self._pictures[index]
            frame_hwc = read_image(picture)
            size = frame_hwc.shape[1], frame_hwc.shape[0]
            self._size = self._size or size
            if size != self._size:
                raise Reject(
                    "broken_frame",
                    f"{picture} is {size[0]}x{size[1]} px, frames before it are {self._size[0]}x{self._size[1]}",
                )
            yield index, frame_hwc

    def close(self) -> None:
        """Images are opened one at a time."""


def _pictures(folder: Path) -> list[Path]:
    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError as error:
        raise Reject("missing", f"{folder} does not exist") from error
    except NotADirectoryError as error:
        raise Reject("not_a_video", f"{folder} is a file, not a folder of frames") from error
    except OSError as error:
        raise Reject("unreadable", f"{folder}: {error.strerror or error}") from error
    jpegs = [path for path in paths if path.suffix.lower() in (".jpg", ".jpeg")]
    return sorted(jpegs or [path for path in paths if path.suffix.lower() == ".png"], key=_natural)


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """2.jpg before 10.jpg; the same order as plain sorting for zero-padded names."""
    parts = re.split(r"(\d+)", path.stem)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def read_image(path: Path) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 RGB. Raises Reject("broken_frame") or, before anything is decoded, Reject("too_large") naming the image.

    libjpeg only warns about damaged data and goes on with grey blocks; simplejpeg takes such a warning for an error.
    Pillow reads what is no plain JPEG.
    """
    try:
        data = path.read_bytes()
        if data[:2] == JPEG_MAGIC:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data, strict=False)
            _refuse_giant(path, width, height)
            if colorspace not in ("CMYK", "YCCK"):
                return np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB"))
        with Image.open(BytesIO(data)) as image:
            _refuse_giant(path, *image.size)
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        what = "is empty" if path.is_file() and path.stat().st_size == 0 else f"cannot be decoded: {error}"
        raise Reject("broken_frame", f"{path} {what}") from error


def _refuse_giant(path: Path, width: int, height: int) -> None:
    if width * height > LARGEST_FRAME_PIXELS:
        raise Reject(
            "too_large",
            f"{path} is {width}x{height} px by its header; at most {LARGEST_FRAME_PIXELS} pixels are decoded",
        )

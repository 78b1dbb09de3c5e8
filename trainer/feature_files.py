"""Features as files: pictures and videos are read at a size that the network takes, arrays and colored pictures are written.

`trainer.features_command` is the command over it. A video gets one basis, fitted to its first frame, so that a color means
the same feature from beginning to end.

Shape legend: C feature channels, D encoder width, h x w pixels that the network sees.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from safetensors.torch import save
from torch import Tensor

from common.clip import VideoFile
from common.feature_colors import ColorBasis
from shards.files import atomic_file, atomic_path, write_atomic
from trainer.extract_features import PLAIN, Extracted, Frugality
from trainer.flowfeat import FlowFeat

BAND_PIXELS = 1 << 20
Pixels = NDArray[np.uint8]


def read_image(path: Path, shorter_px: int, multiple: int) -> Pixels:
    """RGB [h, w, 3], resized as `resized` says. ValueError names the file."""
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error})") from error
    return resized(picture, shorter_px, multiple)


def resized(picture: Image.Image, shorter_px: int, multiple: int) -> Pixels:
    """Shorter side resized to about `shorter_px`, both sides to multiples of `multiple`."""
    scale = shorter_px / min(picture.size)
    width, height = (max(multiple, round(side * scale / multiple) * multiple) for side in picture.size)
    return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))


def write_picture(out: Path, name: str, found: Extracted, file_format: str) -> tuple[Path, Path]:
    """The features of one picture and their first three components in color: the two files."""
    colored = out / f"{name}.png"
    with atomic_file(colored) as stream:
        high = found.high.float()
        Image.fromarray(colored_in_bands(ColorBasis.fit(high), high)).save(stream, format="PNG")
    return write_features(out, name, found, file_format), colored


def write_features(out: Path, name: str, found: Extracted, file_format: str) -> Path:
    """float16 arrays as `name`.npy (the dense map alone), .npz or .safetensors (`high` [C, h, w] and `low` [D, rows, columns])."""
    path = out / f"{name}.{file_format}"
    if file_format == "safetensors":
        write_atomic(path, save({"high": _half(found.high), "low": _half(found.low)}, {"source": name}))
        return path
    with atomic_file(path) as stream:
        if file_format == "npz":
            np.savez(stream, high=_half(found.high).numpy(), low=_half(found.low).numpy())
        else:
            np.save(stream, _half(found.high).numpy())
    return path


def colored_in_bands(basis: ColorBasis, high_chw: Tensor) -> Pixels:
    """uint8 [h, w, 3]. Band by band, because coloring copies what it is given, and a large map may be most of the memory."""
    rows = max(1, BAND_PIXELS // high_chw.shape[2])
    return np.concatenate([basis.colors(band) for band in high_chw.split(rows, dim=1)])


def draw_video(
    model: FlowFeat,
    source: Path,
    out: Path,
    shorter_px: int,
    *,
    each: Callable[[int, int, Extracted], None],
    frugality: Frugality = PLAIN,
) -> int:
    """A video's features in color, as the mp4 `out`; the number of frames.

    each: called with every frame's number, how many the container claims, and its features. frugality: for large frames.
    Raises ValueError for a video
    without readable frames, OSError where the result cannot be written.
    """
    video = VideoFile(source)
    claimed, fps = video.claimed_frames(), video.fps()
    basis: ColorBasis | None = None
    writer: cv2.VideoWriter | None = None
    done = 0
    try:
        with atomic_path(out, keep_suffix=True) as temporary:
            for frame_hwc in video.frames():
                pixels_hwc = resized(Image.fromarray(frame_hwc), shorter_px, model.size_multiple)
                found = model.extract(pixels_hwc, tile=frugality.tile, memory=frugality.memory)
                high = found.high.float()
                if basis is None or writer is None:
                    basis, writer = ColorBasis.fit(high), _video_writer(temporary, fps, *pixels_hwc.shape[:2])
                writer.write(np.ascontiguousarray(colored_in_bands(basis, high)[..., ::-1]))
                each(done, claimed, found)
                done += 1
            if writer is None:
                raise ValueError(f"{source} cannot be read as a video")
            writer.release()
            # OpenCV reports no failed write, such as on a full disk: the frames are counted instead.
            written = int(cv2.VideoCapture(str(temporary)).get(cv2.CAP_PROP_FRAME_COUNT))
            if written != done:
                raise OSError(f"{out} could not be written whole ({written} of {done} frames): is the disk full?")
    finally:
        if writer is not None:
            writer.release()
    return done


def _video_writer(path: Path, fps: float, height: int, width: int) -> cv2.VideoWriter:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    if not writer.isOpened():
        raise OSError(f"{path} cannot be written as a video")
    return writer


def _half(map_chw: Tensor) -> Tensor:
    return map_chw.to(torch.float16).cpu().contiguous()

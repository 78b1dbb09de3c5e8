"""From a frame of any size to the squares that are stored and that flow is computed on.

Comes in: a decoded RGB frame [H, W, 3] uint8. Goes out: its centre square at `image_size` (448) and, from that square, the one
at `flow_size` (224) that the flow network sees. Both resizes are Pillow's bilinear filter, which is antialiased when it shrinks;
the official code does the same through torchvision. Resizing twice is therefore part of the definition: 224 is made from 448.

Pillow resizes rows first and columns after, with whole grey levels in between. So the frame is cropped between the two: what the crop
throws away sideways is never resized upwards. Enlarging is in `enlarging` and halving, which is what 448 → 224 is, in `halving`; both give
Pillow's levels to the bit in a fraction of its time (340x256 to both squares: 0.6 of 2.9 ms). Pillow itself shrinks larger frames. It can
resize a sub-rectangle (`resize(box=...)`), but takes the box in float32 and its weights then differ in the last bits: 0.01 to 24 % of the
values came out one grey level off. torch's antialiased resize differs from Pillow's in up to 7 % of the values where it enlarges.

Shape legend: H, W side of the frame, S side of a square, C = 3 channels RGB.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.video.enlarging import enlarge_rows
from pipeline.video.halving import SMALLEST_PX, halved
from pipeline.video.reused_arrays import ReusedArrays

MIN_SIDE_PX = 16
"""Frames with a shorter side than this are refused: enlarged 28 times they hold no texture that flow could follow."""

MAX_ASPECT = 16.0
"""Frames longer than this many times their shorter side are refused: at 448 px the longer side would fill memory for nothing."""


_reused = ReusedArrays()


class FrameSizeError(ValueError):
    """The frame is too small or too narrow to make a square from."""


def check_size(width: int, height: int) -> None:
    """Raises FrameSizeError naming the size and the limit that it breaks."""
    short, long = min(width, height), max(width, height)
    if short < MIN_SIDE_PX:
        raise FrameSizeError(f"the frame is {width}x{height} px, the shorter side must be at least {MIN_SIDE_PX} px")
    if long > MAX_ASPECT * short:
        raise FrameSizeError(f"the frame is {width}x{height} px, more than {MAX_ASPECT:g} times as long as wide")


def resized_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """(width, height) after the shorter side has become `short_side`; the longer one is truncated to an integer."""
    if width <= height:
        return short_side, int(short_side * height / width)
    return int(short_side * width / height), short_side


def crop_box(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the centred square. Python's round: a half goes to the even neighbour."""
    left = round((width - size) / 2)
    top = round((height - size) / 2)
    return left, top, left + size, top + size


def centre_square(frame_hwc: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 -> [S, S, 3] uint8: shorter side resized to `size`, then the centre cropped.

    Raises FrameSizeError for frames that `check_size` refuses.
    """
    height, width = frame_hwc.shape[:2]
    check_size(width, height)
    wide, high = resized_size(width, height, size)
    left, top, right, bottom = crop_box(wide, high, size)
    if min(width, height) <= size:
        return _enlarged_square(frame_hwc, (wide, high), (left, top), size)
    image = Image.fromarray(frame_hwc).resize((wide, height), Image.Resampling.BILINEAR)
    if wide != size:
        image = image.crop((left, 0, right, height))
    image = image.resize((size, high), Image.Resampling.BILINEAR)
    if high != size:
        image = image.crop((0, top, size, bottom))
    return np.asarray(image)


def _enlarged_square(
    frame_hwc: NDArray[np.uint8], enlarged: tuple[int, int], corner: tuple[int, int], size: int
) -> NDArray[np.uint8]:
    """The square at `corner` (left, top) of a frame made `enlarged` (width, height), of which only this square is made."""
    height, width = frame_hwc.shape[:2]
    (wide, high), (left, top) = enlarged, corner
    if wide == width:
        narrow_hwc = frame_hwc[:, left : left + size]
    else:
        turned_whc = cv2.transpose(frame_hwc, _reused.take("turned", (width, height, 3)))
        columns_whc = _reused.take("columns", (size, height, 3))
        enlarge_rows(turned_whc.reshape(width, height * 3), wide, left, columns_whc.reshape(size, height * 3))
        narrow_hwc = cv2.transpose(columns_whc, _reused.take("turned", (height, size, 3)))
    if high == height:
        return narrow_hwc[top : top + size].copy()
    square_hwc = np.empty((size, size, 3), np.uint8)
    enlarge_rows(narrow_hwc.reshape(height, size * 3), high, top, square_hwc.reshape(size, size * 3))
    return square_hwc


def shrink_square(square_hwc: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """[S, S, 3] uint8 -> [size, size, 3] uint8, bilinear and antialiased; the same array when it has that size already."""
    side = square_hwc.shape[0]
    if side == size:
        return square_hwc
    if side == 2 * size and size >= SMALLEST_PX:
        return halved(square_hwc)
    return np.asarray(Image.fromarray(square_hwc).resize((size, size), Image.Resampling.BILINEAR))

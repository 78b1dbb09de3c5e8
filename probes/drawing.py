"""What tasks draw: features as colours (three principal components), masks laid over frames, depth maps and surface normals.

Feature maps, label maps and depth maps come in while a task measures a unit, pictures go out to its `PictureSink`. A colour basis is
fitted once per source and unit, so that a colour means the same feature in every picture of the unit.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from common.feature_colors import ColorBasis
from common.flow_colors import flow_to_color
from probes.sources.features import Features

WIDEST_PX = 480
"""Pictures in the report are no wider than this."""
LEGEND_ROW_PX, LEGEND_TEXT_PX, LONGEST_NAME = 30, 19, 20

OBJECT_COLORS = np.array(
    [
        (230, 57, 70),
        (46, 196, 182),
        (255, 183, 3),
        (131, 56, 236),
        (58, 134, 255),
        (251, 111, 146),
        (96, 211, 68),
        (255, 112, 37),
    ],
    dtype=np.float32,
)
"""RGB of objects 1, 2, ...; repeated beyond the eighth."""


def shown_map(features: Features) -> Tensor:
    """The map [C, h, w] a picture of these features shows: the decoder's where there is one, else the token grid."""
    return features.low_bdgf[0] if features.high_bkhw is None else features.high_bkhw[0]


def display_size(height: int, width: int) -> tuple[int, int]:
    """(width, height) of a picture in the report, in the aspect of the frame."""
    scale = min(1.0, WIDEST_PX / width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def feature_picture(basis: ColorBasis, map_chw: Tensor, size: tuple[int, int]) -> Image.Image:
    """Features as colours at `size` (width, height); coarse maps keep their visible cells."""
    colours = basis.colors(map_chw)
    enlarged = colours.shape[1] * 2 <= size[0]
    return Image.fromarray(colours).resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.BILINEAR)


def overlay(image: Image.Image, labels_hw: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """Objects tinted and outlined over the frame, at `size` (width, height)."""
    pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
    labels = np.asarray(Image.fromarray(labels_hw).resize(size, Image.Resampling.NEAREST))
    colours = OBJECT_COLORS[(labels.astype(np.int64) - 1) % len(OBJECT_COLORS)]
    inside = labels > 0
    # The outline is the object's own rim, one pixel on every side where the label changes.
    padded = np.pad(labels, 1, mode="edge")
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    rim = inside & np.logical_or.reduce([labels != neighbour for neighbour in around])
    opacity = np.where(rim, 1.0, np.where(inside, 0.5, 0.0))[..., None]
    return Image.fromarray((pixels * (1 - opacity) + colours * opacity).round().astype(np.uint8))


def depth_picture(depth_hw: NDArray[np.float32], range_m: tuple[float, float], size: tuple[int, int]) -> Image.Image:
    """Depth as colours, from red at the near end of `range_m` to blue at the far end; black where it is 0."""
    near, far = range_m
    closeness = np.clip((far - depth_hw) / max(far - near, 1e-6), 0, 1)
    colours = cv2.applyColorMap(np.rint(255 * closeness).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return Image.fromarray(np.where((depth_hw > 0)[..., None], colours, 0).astype(np.uint8)).resize(
        size, Image.Resampling.NEAREST
    )


def normal_picture(normals_hwc: NDArray[np.float64], known_hw: NDArray[np.bool_], size: tuple[int, int]) -> Image.Image:
    """Unit normals as colours: red to the right, green up, blue towards the camera; black where unknown."""
    outward = (normals_hwc * (1, -1, -1) + 1) / 2
    colours = np.where(known_hw[..., None], np.rint(255 * outward), 0).astype(np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)


def picked_frames(frames: int, count: int = 2) -> list[int]:
    """`count` scored frames spread over a sequence: in the middle and near the end, where a probe has the most to lose."""
    last = frames - 2
    return sorted({max(1, round(last * (i + 1) / count)) for i in range(count)})


def class_overlay(image: Image.Image, classes_hw: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """Every pixel tinted with the colour of its class, at `size` (width, height); 255, which is no class, is darkened."""
    pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
    classes = np.asarray(Image.fromarray(classes_hw).resize(size, Image.Resampling.NEAREST))
    return Image.fromarray((0.35 * pixels + 0.65 * CLASS_COLORS[classes]).round().astype(np.uint8))


def _class_colors() -> NDArray[np.float32]:
    """RGB of classes 0 to 255: hues a golden angle apart, so that neighbouring numbers differ; black for 255. Class 0, which is often
    the background, is grey."""
    colors = np.zeros((256, 3), np.float32)
    for label in range(255):
        lightness, saturation = ((0.5, 0.9), (0.7, 0.7), (0.32, 0.75))[label % 3]
        colors[label] = 255 * np.array(colorsys.hls_to_rgb(label * 0.618034 % 1, lightness, saturation))
    colors[0] = 150
    return colors


CLASS_COLORS = _class_colors()


def class_legend(classes: Sequence[tuple[int, str]]) -> Image.Image:
    """Number and name of classes beside their colours, in two columns that can be read on a phone."""
    rows = -(-len(classes) // 2)
    canvas = Image.new("RGB", (WIDEST_PX, rows * LEGEND_ROW_PX), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(LEGEND_TEXT_PX)
    for place, (label, name) in enumerate(classes):
        x, y = place // rows * WIDEST_PX // 2, place % rows * LEGEND_ROW_PX
        red, green, blue = (round(float(value)) for value in CLASS_COLORS[label])
        pen.rectangle([x + 4, y + 4, x + LEGEND_ROW_PX - 4, y + LEGEND_ROW_PX - 4], fill=(red, green, blue))
        pen.text((x + LEGEND_ROW_PX + 2, y + 4), name[:LONGEST_NAME], fill="black", font=font)
    return canvas


def with_wheel(flow_picture: NDArray[np.uint8]) -> Image.Image:
    """A picture of flow with the wheel of its directions in the lower right corner."""
    height, width = flow_picture.shape[:2]
    side = max(min(height, width) // 4, 8)
    x, y = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))
    inside = np.hypot(x, y) <= 1
    picture = flow_picture.copy()
    corner = picture[height - side :, width - side :]
    corner[inside] = flow_to_color(np.stack([x, y]), 1.0)[inside]
    return Image.fromarray(picture)

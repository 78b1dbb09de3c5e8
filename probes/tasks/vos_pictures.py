"""Pictures of one video's segmentation: whole frames, a crop of a boundary at full resolution, and short clips.

Frames, annotations, predictions and features come in as a probe meets them; `picked_frames` are drawn, all are filmed where the
video is one of the first few. Clips are held until the end of the video: at most `CLIP_FRAMES` frames of `CLIP_WIDTH_PX`, 0.1 MB each,
two per frame and source.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.feature_colors import ColorBasis
from probes.data.davis import Sequence
from probes.drawing import display_size, feature_picture, overlay, picked_frames, shown_map
from probes.sources.features import Features, Source
from probes.task import Context

FILMED = 2
"""Videos of a data set that have clips."""
CLIP_FRAMES, CLIP_WIDTH_PX = 60, 240
CROP_PX, CROP_TIMES = 64, 4
"""Side of a crop in the video's own pixels, and how many times larger each of them is shown."""
Labels = NDArray[np.uint8]
Box = tuple[int, int, int, int]


def boundary_box(labels_hw: Labels) -> Box | None:
    """left, top, right, bottom of `CROP_PX` around the middle pixel of all objects' outlines; None without an outline."""
    edge = np.zeros(labels_hw.shape, bool)
    edge[:, 1:] |= labels_hw[:, 1:] != labels_hw[:, :-1]
    edge[1:] |= labels_hw[1:] != labels_hw[:-1]
    places = np.argwhere(edge)
    if not len(places):
        return None
    row, column = places[len(places) // 2]
    height, width = labels_hw.shape
    left = int(np.clip(column - CROP_PX // 2, 0, max(width - CROP_PX, 0)))
    top = int(np.clip(row - CROP_PX // 2, 0, max(height - CROP_PX, 0)))
    return left, top, min(left + CROP_PX, width), min(top + CROP_PX, height)


def _enlarged(image: Image.Image) -> Image.Image:
    return image.resize((CROP_TIMES * image.width, CROP_TIMES * image.height), Image.Resampling.NEAREST)


class VideoPictures:
    """What is drawn of one video for the sources of one encoder."""

    def __init__(self, sequence: Sequence, context: Context, *, filmed: bool) -> None:
        self.sequence, self.sink = sequence, context.pictures
        self.shown = set(picked_frames(len(sequence)))
        self.filmed = filmed
        self._boxes: dict[int, Box | None] = {}
        self._clips: dict[tuple[str, str], tuple[Source, list[Image.Image]]] = {}

    def frame(self, index: int, image: Image.Image, truth: Labels) -> None:
        """A frame and its annotation, before what sources make of it."""
        if index not in self.shown:
            return
        name, size = self.sequence.frames[index].stem, display_size(image.height, image.width)
        self.sink.save(name, "frame", image.resize(size, Image.Resampling.BILINEAR))
        self.sink.save(name, "annotation", overlay(image, truth, size))
        box = self._boxes[index] = boundary_box(truth)
        if box is not None:
            self.sink.crop(name, "frame, full resolution", _enlarged(image.crop(box)))
            self._crop_of(name, "annotation, full resolution", image, truth, box, None)

    def predicted(
        self, index: int, source: Source, image: Image.Image, labels: Labels, basis: ColorBasis, features: Features
    ) -> None:
        """What one source makes of a frame. features: of this picture alone."""
        if index in self.shown:
            name, size = self.sequence.frames[index].stem, display_size(image.height, image.width)
            self.sink.save(name, "mask", overlay(image, labels, size), source)
            self.sink.save(name, "features", feature_picture(basis, shown_map(features), size), source)
            box = self._boxes.get(index)
            if box is not None:
                self._crop_of(name, "mask, full resolution", image, labels, box, source)
                whole = feature_picture(basis, shown_map(features), image.size)
                self.sink.crop(name, "features, full resolution", _enlarged(whole.crop(box)), source)
        if self.filmed and index <= CLIP_FRAMES:
            size = CLIP_WIDTH_PX, max(2, round(CLIP_WIDTH_PX * image.height / image.width))
            self._film("mask, clip", source, overlay(image, labels, size))
            self._film("features, clip", source, feature_picture(basis, shown_map(features), size))

    def finish(self) -> None:
        """Write the clips."""
        for (caption, _), (source, images) in self._clips.items():
            self.sink.clip("clips", caption, images, source)
        self._clips.clear()

    def _crop_of(
        self, name: str, caption: str, image: Image.Image, labels: Labels, box: Box, source: Source | None
    ) -> None:
        left, top, right, bottom = box
        size = CROP_TIMES * (right - left), CROP_TIMES * (bottom - top)
        self.sink.crop(name, caption, overlay(image.crop(box), labels[top:bottom, left:right], size), source)

    def _film(self, caption: str, source: Source, image: Image.Image) -> None:
        self._clips.setdefault((caption, source.name), (source, []))[1].append(image)

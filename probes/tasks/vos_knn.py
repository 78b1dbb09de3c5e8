"""Video object segmentation without training: the first frame's labels propagated by nearest neighbours among patches.

A DAVIS sequence comes in through `data/davis.py`, features from the sources; frame after frame the soft labels of the first
frame and of the latest seven are carried to the cells of the next (`heads/label_propagation.py`); J and F against the
annotation go back per object, with pictures of two frames.

Protocols: `dino480` (DINO's script, and FlowFeat's table) and `dinov3-960` (DINOv3's notebook); their scores do not compare.
Sources with a decoder propagate the encoder's and the decoder's map, averaged to the token grid, separately and average the
two label maps (FlowFeat, NeurIPS 2025, section B.2). `--knn-grid 2` doubles the grid with everything else unchanged, so that
a window covers half the extent (the paper's Table 6). One deviation from DINO's script: a source normalises pixels itself,
with 0.229 as the standard deviation of red where the script has 0.228.

Memory: per source with a decoder, 8 frames of two maps and one soft label map on the grid (26 MB at 480 px with patch 16,
384 + 128 channels and 1 object; 4.2 times that at 960 px; 4 times with `--knn-grid 2`), a copy of one of them, and matching in
tiles of below 75 MB.
The network's own full-resolution map is larger than all of these, 0.2 GB at 480x832 and 0.8 GB at 960x1728, one at a time.
Nothing grows with the length of the video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import click
import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.feature_colors import ColorBasis
from probes.data.batching import batches
from probes.drawing import shown_map
from probes.heads.label_propagation import (
    DINO480,
    SETTINGS,
    LabelPropagator,
    PropagationSettings,
    first_labels,
    label_map,
    on_grid,
)
from probes.metrics.davis import score_frame
from probes.options import option
from probes.sources.features import Features, Source, features_of
from probes.task import Context, Reference, Row, Settings
from probes.tasks.vos_common import SequenceUnit, VosTask, object_rows
from probes.tasks.vos_pictures import FILMED, VideoPictures

GRIDS = (1, 2)


@dataclass(frozen=True)
class KnnVos(VosTask):
    """The probe as asked for on the command line. The default is the protocol of the paper's table."""

    name: ClassVar = "vos-knn"
    title: ClassVar = "Video object segmentation, label propagation"
    description: ClassVar = (
        "The first frame's labels are carried from frame to frame by the nearest neighbours of each patch in a window; "
        "nothing is trained. Decoders' features are averaged to the token grid, and the label maps of encoder and decoder "
        "are averaged. Scores of different protocols do not compare. J: region overlap; F: boundary accuracy; per cent."
    )
    pictures_note: ClassVar = (
        "Features: three principal components as red, green and blue, fitted to the first frame of the sequence. "
        "Propagation sees them averaged to the token grid."
    )

    embedded: ClassVar = {"root": "davis", "height_px": 160}

    protocol: str = field(
        default=DINO480.name, metadata=option("--knn-protocol", click.Choice(list(SETTINGS)), "Published settings.")
    )
    height_px: int | None = field(
        default=None,
        metadata=option("--height", int, "Shorter side of the input, px.  [default: the protocol's, 480 or 960]"),
    )
    grid: int = field(
        default=1, metadata=option("--knn-grid", click.IntRange(min(GRIDS), max(GRIDS)), "2 doubles the token grid.")
    )

    def __post_init__(self) -> None:
        if self.protocol not in SETTINGS:
            raise ValueError(f"unknown protocol {self.protocol!r}; known: {', '.join(SETTINGS)}")
        if self.height_px is not None and self.height_px < 1:
            raise ValueError(f"height {self.height_px} must be at least 1 pixel")
        if self.grid not in GRIDS:
            raise ValueError(f"grid {self.grid} must be 1 (tokens) or 2 (doubled)")

    @property
    def rules(self) -> PropagationSettings:
        """The protocol's settings, at another size where one was given."""
        published = SETTINGS[self.protocol]
        if self.height_px is None or self.height_px == published.short_side_px:
            return published
        # Below the protocol's size its step of 64 px would squeeze the picture visibly: the encoder's own is taken.
        step = None if published.long_step_px is None else 1
        return replace(published, short_side_px=self.height_px, long_step_px=step)

    def settings(self) -> Settings:
        rules = self.rules
        return {
            "protocol": rules.name,
            "height": rules.short_side_px,
            "grid": self.grid,
            "window": f"{rules.window}, radius {rules.radius}",
            "temperature": rules.temperature,
            "neighbours": rules.neighbors,
            "context": f"first frame and {rules.context_frames}",
            "upsampling": rules.upsampling,
            "resizing": rules.resize,
            "objects": self.objects_setting,
        }

    @classmethod
    def references(cls, settings: Settings, units: int) -> Sequence[Reference]:
        """The paper has none of other protocols than DINO's."""
        return super().references(settings, units) if settings.get("protocol") == DINO480.name else ()

    def units(self) -> list[PropagationUnit]:
        return [PropagationUnit(one, self, filmed=place < FILMED) for place, one in enumerate(self.opened())]


@dataclass
class _Track:
    """A source on its way through a video: one queue per feature map, and the colours of its pictures."""

    propagators: list[LabelPropagator]
    basis: ColorBasis

    def step(self, maps: Sequence[Tensor]) -> Tensor:
        """Mean soft labels [c, g, f] of the next frame; the mean is not fed back."""
        soft = [propagator.step(features) for propagator, features in zip(self.propagators, maps, strict=True)]
        return torch.stack(soft).mean(dim=0)


@dataclass(frozen=True)
class PropagationUnit(SequenceUnit):
    """One video of the data set."""

    task: KnnVos

    def _evaluate_group(self, sources: Sequence[Source], context: Context) -> dict[str, list[Row]]:
        sequence, rules = self.sequence, self.task.rules
        original = sequence.height, sequence.width
        size_hw = rules.input_size(*original, sources[0].encoder.size_multiple)
        if min(size_hw) == 0:
            raise ValueError(
                f"height {rules.short_side_px} is too small: the encoder takes multiples of "
                f"{sources[0].encoder.size_multiple} pixels"
            )
        tracks = self._begin(sources, resized([sequence.image(0)], size_hw, rules, context.device))
        context.step(len(sources))
        pictures = VideoPictures(sequence, context, filmed=self.filmed)
        scores = {source.name: np.empty((2, sequence.objects, len(sequence) - 2)) for source in sources}
        for indices in batches(1, len(sequence) - 1, context.batches.pictures(size_hw, context.device)):
            images = [sequence.image(index) for index in indices]
            truths = [sequence.labels(index) for index in indices]
            for place, index in enumerate(indices):
                pictures.frame(index, images[place], truths[place])
            for source, features in features_of(sources, resized(images, size_hw, rules, context.device)):
                track = tracks[source.name]
                for place, index in enumerate(indices):
                    one = features.picture(place)
                    soft = track.step(maps_of(one, self.task.grid))
                    predicted = label_map(soft, size_hw, original, rules)
                    scores[source.name][:, :, index - 1] = score_frame(truths[place], predicted, sequence.objects)
                    pictures.predicted(index, source, images[place], predicted, track.basis, one)
            context.step(len(sources) * len(indices))
        pictures.finish()
        return {name: object_rows(values) for name, values in scores.items()}

    def _begin(self, sources: Sequence[Source], images_bhwc: Tensor) -> dict[str, _Track]:
        """Every source's queues with the first frame and its labels."""
        annotation = self.sequence.labels(0)
        tracks = {}
        for source, features in features_of(sources, images_bhwc):
            features.require_finite()
            maps = maps_of(features, self.task.grid)
            labels = first_labels(annotation, (maps[0].shape[-2], maps[0].shape[-1]))
            if not bool(labels[1:].any()):
                raise ValueError(
                    f"sequence {self.name!r}: the objects of the first frame vanish at "
                    f"{labels.shape[-2]}x{labels.shape[-1]} ({source.name}): use a larger --height"
                )
            propagators = [LabelPropagator(one, labels, self.task.rules) for one in maps]
            tracks[source.name] = _Track(propagators, ColorBasis.fit(shown_map(features)))
        return tracks


def maps_of(features: Features, times: int) -> list[Tensor]:
    """What is propagated of one picture: tokens [d, g, f], and the decoder's map on the same grid where there is one."""
    g, f = features.low_bdgf.shape[-2:]
    grid = g * times, f * times
    features = features.for_heads()
    maps = [features.low_bdgf] if features.high_bkhw is None else [features.low_bdgf, features.high_bkhw]
    return [on_grid(one, grid)[0] for one in maps]


def resized(
    images: Sequence[Image.Image], size_hw: tuple[int, int], rules: PropagationSettings, device: torch.device
) -> Tensor:
    """uint8 [B, H, W, 3] of RGB pictures, resized as the protocol does: OpenCV's bilinear has no antialiasing."""
    width_height = size_hw[1], size_hw[0]
    if rules.resize == "bilinear":
        arrays = [cv2.resize(np.asarray(image), width_height, interpolation=cv2.INTER_LINEAR) for image in images]
    else:
        arrays = [np.asarray(image.resize(width_height, Image.Resampling.BICUBIC)) for image in images]
    return torch.from_numpy(np.stack(arrays)).to(device)

"""Video object segmentation with a linear probe: how well one linear layer, fitted to frame 0, finds the objects later on.

A DAVIS sequence comes in through `data/davis.py`, features from the sources; per source one layer is fitted to the annotated
first frame and applied to every other frame on its own (nothing is propagated); J and F against the annotation go back per
object, with pictures of two frames.

Protocol: FlowFeat (NeurIPS 2025), section B.1. Where it is silent: bilinear resizing has align_corners False; labels are
reduced to the resolution of the features by taking the pixel at each cell's centre; frames are resized with antialiasing,
as in training; features are not normalised. `--decoder-grid tokens` is the paper's Table 5a: the decoder's map is averaged to the
token grid and the probe is fitted and applied there, on labels of that grid, as the encoder's own is.

Memory at 480x832, 128 channels: a full-resolution map is 0.2 GB; two are held while fitting and the decoder needs a few
more, 1.5 GB at the peak on a CPU with a ViT-S encoder, however long the video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from common.feature_colors import ColorBasis
from probes.data.batching import batches
from probes.data.images import PAPER_HEIGHT_PX, batch_of, input_size
from probes.drawing import shown_map
from probes.heads import linear
from probes.heads.label_propagation import on_grid
from probes.metrics.davis import score_frame
from probes.options import option
from probes.sources.features import Features, Source, features_of
from probes.task import Context, Row, Settings
from probes.tasks.vos_common import SequenceUnit, VosTask, object_rows
from probes.tasks.vos_pictures import FILMED, VideoPictures

PIXELS, TOKENS = "pixels", "tokens"


@dataclass(frozen=True)
class LinearVos(VosTask):
    """The probe as asked for on the command line. Defaults are the paper's."""

    name: ClassVar = "vos"
    title: ClassVar = "Video object segmentation, linear probe"
    description: ClassVar = (
        "One linear layer per video, fitted to the annotated first frame and applied to every other frame on its own. "
        "All sources share one frozen encoder. J: region overlap; F: boundary accuracy; per cent."
    )
    pictures_note: ClassVar = (
        "Features: three principal components as red, green and blue, fitted to the first frame of the sequence. "
        "The encoder alone shows its token grid."
    )

    embedded: ClassVar = {"root": "davis", "height_px": 160}
    refines: ClassVar = True

    height_px: int = field(default=PAPER_HEIGHT_PX, metadata=option("--height", int, "Input height, px."))
    iterations: int = field(
        default=linear.ITERATIONS, metadata=option("--iterations", int, "Steps of the linear probe.")
    )
    standardise: bool = field(
        default=False,
        metadata=option("--standardise", bool, "Give feature channels mean 0 and variance 1 first (not the paper's)."),
    )
    decoder_grid: str = field(
        default=PIXELS,
        metadata=option(
            "--decoder-grid",
            click.Choice([PIXELS, TOKENS]),
            "Where a decoder's map is probed; tokens: the paper's Table 5a.",
        ),
    )

    def __post_init__(self) -> None:
        if self.height_px < 1:
            raise ValueError(f"height {self.height_px} must be at least 1 pixel")
        if self.iterations < 1:
            raise ValueError(f"iterations {self.iterations} must be at least 1: the probe starts from zero weights")
        if self.decoder_grid not in (PIXELS, TOKENS):
            raise ValueError(f"decoder grid {self.decoder_grid!r} must be {PIXELS} or {TOKENS}")

    def settings(self) -> Settings:
        return {
            "height": self.height_px,
            "iterations": self.iterations,
            "learning_rate": linear.LEARNING_RATE,
            "weight_decay": linear.WEIGHT_DECAY,
            "standardise": self.standardise,
            "objects": self.objects_setting,
            # Named only where it is not the paper's main protocol: what was measured without the option keeps its digest.
            **({} if self.decoder_grid == PIXELS else {"decoder grid": self.decoder_grid}),
        }

    def units(self) -> list[LinearUnit]:
        return [LinearUnit(one, self, filmed=place < FILMED) for place, one in enumerate(self.opened())]

    def probed(self, features: Features) -> Features:
        """What the layer sees: the decoder's map at every pixel, or averaged to the token grid."""
        if self.decoder_grid == PIXELS or features.high_bkhw is None:
            return features
        grid = (features.low_bdgf.shape[-2], features.low_bdgf.shape[-1])
        return replace(features, high_bkhw=on_grid(features.high_bkhw, grid))


@dataclass(frozen=True)
class LinearUnit(SequenceUnit):
    """One video of the data set."""

    task: LinearVos

    def _evaluate_group(self, sources: Sequence[Source], context: Context) -> dict[str, list[Row]]:
        sequence = self.sequence
        size_hw = input_size(self.task.height_px, sequence.height, sequence.width, sources[0].encoder.size_multiple)
        fitted = self._fit_first_frame(sources, batch_of([sequence.image(0)], size_hw, context.device))
        context.step(len(sources))
        pictures = VideoPictures(sequence, context, filmed=self.filmed)
        scores = {source.name: np.empty((2, sequence.objects, len(sequence) - 2)) for source in sources}
        for indices in batches(1, len(sequence) - 1, context.batches.pictures(size_hw, context.device)):
            images = [sequence.image(index) for index in indices]
            truths = [sequence.labels(index) for index in indices]
            for place, index in enumerate(indices):
                pictures.frame(index, images[place], truths[place])
            for source, decoded in features_of(sources, batch_of(images, size_hw, context.device)):
                features = self.task.probed(decoded)
                probe, basis = fitted[source.name]
                predicted = probe.predict(features, sequence.height, sequence.width, source.refine).cpu().numpy()
                for place, index in enumerate(indices):
                    scores[source.name][:, :, index - 1] = score_frame(
                        truths[place], predicted[place], sequence.objects
                    )
                    one = features.picture(place)
                    pictures.predicted(index, source, images[place], predicted[place], basis, one)
            context.step(len(sources) * len(indices))
        pictures.finish()
        return {name: object_rows(values) for name, values in scores.items()}

    def _fit_first_frame(
        self, sources: Sequence[Source], images_bhwc: Tensor
    ) -> dict[str, tuple[linear.LinearProbe, ColorBasis]]:
        """Per source a probe and the colours of its pictures, both fitted to frame 0."""
        labels_hw = self.sequence.labels(0)
        fitted = {}
        for source, decoded in features_of(sources, images_bhwc):
            features = self.task.probed(decoded)
            features.require_finite()
            labels = labels_for(features, labels_hw)
            if not bool(labels.any()):
                raise ValueError(
                    f"sequence {self.name!r}: the objects of the first frame vanish at {labels.shape[0]}x{labels.shape[1]} "
                    f"({source.name}): use a larger --height"
                )
            probe = linear.fit(
                features,
                labels,
                self.sequence.objects + 1,
                iterations=self.task.iterations,
                standardise=self.task.standardise,
            )
            fitted[source.name] = probe, ColorBasis.fit(shown_map(features))
        return fitted


def labels_for(features: Features, labels_hw: NDArray[np.uint8]) -> Tensor:
    """int64 labels at the resolution of the features: the label at every cell's centre."""
    target = features.low_bdgf if features.high_bkhw is None else features.high_bkhw
    size = (target.shape[-2], target.shape[-1])
    # "nearest-exact" samples cell centres; "nearest" would take corners and shift a token grid by half a patch.
    labels = F.interpolate(torch.from_numpy(labels_hw.astype(np.float32))[None, None], size=size, mode="nearest-exact")
    return labels[0, 0].long().to(target.device)

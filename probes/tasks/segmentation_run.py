"""How the segmentation probes learn and are scored: from the two splits of a data set to rows, whatever the classifier.

A `Learner` sees the train split and gives a classifier per source; the other split is predicted batch by batch and counted.
Sources of one encoder share every batch, and one full-resolution map is held at a time besides what a learner keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.feature_colors import ColorBasis
from probes.data.batching import BatchLimit, shuffled_batches
from probes.data.segmentation import IGNORED, SegmentationData, Split
from probes.drawing import WIDEST_PX, class_legend, class_overlay, feature_picture, shown_map
from probes.heads.feature_bank import HUMMINGBIRD, BankSettings, FeatureBank, capacity_within
from probes.heads.pixel_classifier import HeadKind, Optimisation, PixelClassifier, bank_features
from probes.metrics.segmentation import ConfusionMatrix
from probes.sources.features import Features, Source, by_encoder
from probes.sources.frozen import FrozenFeatures
from probes.task import Context, Row

EXAMPLES = 4
"""Pictures of a data set that are drawn."""
WHOLE = "all pixels"
MOST_IN_LEGEND = 40

Classify = Callable[[Features, int], Tensor]
"""Features and the side of the square → classes [b, side, side]."""


class Learner(Protocol):
    """What becomes of the train split."""

    def steps(self, pictures: int) -> int:
        """How many pictures of the train split a source is shown."""
        ...

    def learn(self, sources: Sequence[Source], train: Split, side_px: int, context: Context) -> dict[str, Classify]:
        """A classifier per source name. Raises ValueError for data that cannot be read or learnt from."""
        ...


@dataclass(frozen=True)
class TrainedHeads:
    """Heads trained by mini-batches. iterations: None for `epochs` passes. memory_bytes: for features kept in between."""

    kind: HeadKind
    optimisation: Optimisation
    batch: int
    iterations: int | None
    epochs: int
    memory_bytes: int

    def _iterations(self, pictures: int) -> int:
        return self.iterations or self.epochs * math.ceil(pictures / self.batch)

    def steps(self, pictures: int) -> int:
        return self._iterations(pictures) * min(self.batch, pictures)

    def learn(self, sources: Sequence[Source], train: Split, side_px: int, context: Context) -> dict[str, Classify]:
        frozen = SplitFeatures(sources, train, side_px, context.device, self.memory_bytes, context.batches)
        heads: dict[str, PixelClassifier] = {}
        batch, classes = min(self.batch, len(train)), len(train.table.classes)
        for indices in shuffled_batches(len(train), batch, self._iterations(len(train)), context.seed):
            labels = frozen.labels(indices)
            labelled = int((labels != IGNORED).sum())
            for part, source, features in frozen.of(indices):
                if source.name not in heads:
                    heads[source.name] = PixelClassifier(
                        features, classes, self.kind, self.optimisation, seed=context.seed, refine=source.refine
                    )
                heads[source.name].add(features, labels[part.start : part.stop], labelled)
            for head in heads.values():
                head.step()
            context.step(len(sources) * len(indices))
        return {name: head.predict for name, head in heads.items()}


@dataclass(frozen=True)
class Banks:
    """A bank of labelled cells per source."""

    cells_per_token: int
    memory_bytes: int

    def steps(self, pictures: int) -> int:
        return pictures

    def learn(self, sources: Sequence[Source], train: Split, side_px: int, context: Context) -> dict[str, Classify]:
        frozen = SplitFeatures(sources, train, side_px, context.device, 0, context.batches)
        banks: dict[str, FeatureBank] = {}
        for part, source, features in frozen.of(range(len(train))):
            cells = bank_features(features, self.cells_per_token)
            if source.name not in banks:
                banks[source.name] = self._empty(cells.shape[1], train, context.seed)
            banks[source.name].add(cells, frozen.labels(part))
            context.step(len(part))
        return {name: self._asking(bank) for name, bank in banks.items()}

    def _empty(self, channels: int, train: Split, seed: int) -> FeatureBank:
        classes = len(train.table.classes)
        capacity = min(HUMMINGBIRD.capacity, capacity_within(self.memory_bytes, channels, classes))
        settings = BankSettings(HUMMINGBIRD.neighbors, HUMMINGBIRD.temperature, capacity)
        return FeatureBank(channels, classes, len(train), settings, seed=seed)

    def _asking(self, bank: FeatureBank) -> Classify:
        return lambda features, side_px: bank.predict(bank_features(features, self.cells_per_token), side_px, side_px)


class SplitFeatures:
    """Features and labels of the pictures of a split. The labels are kept where the features are."""

    def __init__(
        self,
        sources: Sequence[Source],
        split: Split,
        side_px: int,
        device: torch.device,
        memory_bytes: int,
        limit: BatchLimit | None = None,
    ) -> None:
        self.split, self.side_px, self.device = split, side_px, device
        size_hw = (side_px, side_px)
        self.frozen = FrozenFeatures(
            sources, self._pictures, len(split), size_hw, device, memory_bytes, limit or BatchLimit()
        )
        self._labels = self._read_labels(range(len(split))) if self.frozen.kept else None

    def labels(self, indices: Sequence[int]) -> Tensor:
        """Classes uint8 [b, side, side]."""
        return self._read_labels(indices) if self._labels is None else self._labels[list(indices)]

    def of(self, indices: Sequence[int]) -> Iterator[tuple[range, Source, Features]]:
        """As `FrozenFeatures.of`."""
        return self.frozen.of(indices)

    def _pictures(self, indices: Sequence[int]) -> Tensor:
        arrays = [np.asarray(self.split.picture(index, self.side_px)) for index in indices]
        return torch.from_numpy(np.stack(arrays)).to(self.device)

    def _read_labels(self, indices: Sequence[int]) -> Tensor:
        arrays = [self.split.labels(index, self.side_px) for index in indices]
        return torch.from_numpy(np.stack(arrays)).to(self.device)


def evaluate(
    data: SegmentationData, learner: Learner, size_px: int, sources: Sequence[Source], context: Context
) -> dict[str, list[Row]]:
    """Rows by source name: a class each, then all pixels."""
    rows: dict[str, list[Row]] = {}
    for group in by_encoder(sources):
        multiple = group[0].encoder.size_multiple
        side_px = size_px // multiple * multiple
        if side_px == 0:
            raise ValueError(f"size {size_px} is too small: the encoder takes multiples of {multiple} pixels")
        classifiers = learner.learn(group, data.train, side_px, context)
        counts = _count(
            data, classifiers, SplitFeatures(group, data.scored, side_px, context.device, 0, context.batches), context
        )
        rows |= {name: rows_of(matrix, data.classes) for name, matrix in counts.items()}
    return rows


def _count(
    data: SegmentationData, classifiers: dict[str, Classify], frozen: SplitFeatures, context: Context
) -> dict[str, ConfusionMatrix]:
    """A confusion matrix per source over the scored split, a few of its pictures drawn on the way."""
    counts = {name: ConfusionMatrix(len(data.classes)) for name in classifiers}
    drawn = {round(place * (len(data.scored) - 1) / max(1, EXAMPLES - 1)) for place in range(EXAMPLES)}
    bases: dict[str, ColorBasis] = {}
    context.pictures.save("", "colours of the classes", class_legend(_shown_classes(data, drawn, frozen.side_px)))
    for part, source, features in frozen.of(range(len(data.scored))):
        truth = frozen.labels(part).cpu().numpy()
        predicted = classifiers[source.name](features, frozen.side_px).to(torch.uint8).cpu().numpy()
        counts[source.name].add(truth, predicted)
        for place, index in enumerate(part):
            if index in drawn:
                one = features.picture(place)
                basis = bases.setdefault(source.name, ColorBasis.fit(shown_map(one)))
                _draw(data.scored, index, frozen.side_px, truth[place], predicted[place], basis, one, source, context)
        context.step(len(part))
    return counts


def _shown_classes(data: SegmentationData, drawn: set[int], side_px: int) -> list[tuple[int, str]]:
    """Number and name of every class, or, of many, of those that the drawn pictures hold."""
    every = list(enumerate(data.classes))
    if len(every) <= MOST_IN_LEGEND:
        return every
    held = {int(label) for index in drawn for label in np.unique(data.scored.labels(index, side_px))}
    return [(label, name) for label, name in every if label in held]


def _draw(
    split: Split,
    index: int,
    side_px: int,
    truth: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    basis: ColorBasis,
    features: Features,
    source: Source,
    context: Context,
) -> None:
    name, size = split.pairs[index].name, (min(side_px, WIDEST_PX),) * 2
    picture = split.picture(index, side_px)
    context.pictures.save(name, "picture", picture.resize(size))
    context.pictures.save(name, "labels", class_overlay(picture, truth, size))
    context.pictures.save(name, "classes", class_overlay(picture, predicted, size), source)
    context.pictures.save(name, "features", feature_picture(basis, shown_map(features), size), source)


def rows_of(matrix: ConfusionMatrix, classes: Sequence[str]) -> list[Row]:
    """A row per class that occurs in truth or prediction, and one for all pixels: the mean of the classes' is the mIoU."""
    scores = matrix.scores()
    rows = [
        Row(name, {"IoU": iou}) for name, iou in zip(classes, scores.iou_by_class, strict=True) if not math.isnan(iou)
    ]
    return [*rows, Row(WHOLE, {"accuracy": scores.pixel_accuracy})]

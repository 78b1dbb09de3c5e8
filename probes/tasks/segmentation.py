"""Semantic segmentation on any folder of pictures and label maps: three probes, each with its own table.

Pairs come in through `data/segmentation_layouts.py`, features from the sources. Heads learn from the train split, label maps
of the other split are predicted and counted in one confusion matrix; a row per class and one for all pixels go back, with the
pictures of a few examples. Pictures and labels are the middle square (see `data/segmentation.py`), and are scored there.

    segmentation            FlowFeat's protocol (NeurIPS 2025, section B.3): a linear head on tokens, the attention probe with a
                            decoder; batch 32, lr 1e-4, weight decay 1e-3, 256 px. The paper trains for up to 100,000
                            iterations, here it is 2,000 unless asked otherwise. It says Adam, here it is AdamW: queries
                            start nearly equal, and gradients of the attention's weights (1e-7) lose against Adam's decay (6e-5).
    segmentation-linear     the upsamplers' protocol (JAFAR, NAF): a linear layer on dense features at 448 px; AdamW, lr 5e-4,
                            weight decay 0.01, batch 2, 20 epochs.
    segmentation-knn        no training (Hummingbird): a bank of labelled cells, 30 neighbours by cosine, 224 px. With a decoder
                            a cell holds the tokens and the decoder's map at twice the token grid, each of unit length.

Memory: pictures stream, never more than a batch; features of the train split are kept between iterations only when all fit
into --feature-memory. A bank takes up to --bank-memory per source. Batches go through the network in parts of one 480p frame's
pixels on a CPU and of eight on a GPU.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import click

from probes.data.segmentation import IGNORED, SegmentationData
from probes.data.segmentation_layouts import layout_names, open_segmentation
from probes.heads.feature_bank import HUMMINGBIRD
from probes.heads.pixel_classifier import Optimisation
from probes.options import option
from probes.paper import references
from probes.sources.features import Source
from probes.task import Context, Metric, Noun, Reference, Row, Settings, Task, Unit
from probes.tasks import chance
from probes.tasks.segmentation_options import (
    batch_option,
    iterations_option,
    memory_option,
    rate_option,
    require_positive,
    size_option,
)
from probes.tasks.segmentation_run import Banks, Learner, TrainedHeads, evaluate

PATH = click.Path(path_type=Path)
GIB = 2**30
EMBEDDED: Settings = {"root": "segmentation", "size_px": 128}


@dataclass(frozen=True)
class SegmentationTask(Task):
    """A probe on a segmentation data set; a subclass says how it learns."""

    unit: ClassVar = Noun("data set", "data sets")
    part: ClassVar = Noun("part", "parts")
    step: ClassVar = Noun("picture", "pictures")
    pictures_note: ClassVar = (
        "Classes in colours of their own, ignored pixels darkened. Features: three principal components as red, green and "
        "blue, fitted to the first picture shown."
    )
    metrics: ClassVar = (
        Metric("IoU", "mIoU", percent=True),
        Metric("accuracy", "pixel accuracy", percent=True),
    )
    headline: ClassVar = "IoU"
    chance_note: ClassVar = "the most frequent class of the scored pictures everywhere"
    in_processes: ClassVar = True
    long_units: ClassVar = True
    named_parts: ClassVar = True
    parts_title: ClassVar = "IoU per class"

    root: Path | None = field(
        default=None, metadata=option("--segmentation", PATH, "Directory of pictures and label maps.", data=True)
    )
    layout: str | None = field(
        default=None,
        metadata=option(
            "--segmentation-layout", click.Choice(layout_names()), "How it is laid out.  [default: as it looks]"
        ),
    )
    split: str = field(default="val", metadata=option("--split", str, "The part to score."))
    classes_file: Path | None = field(
        default=None,
        metadata=option("--classes", PATH, "One class a line, label 0 first.  [default: classes.txt there]"),
    )
    ignored: str = field(
        default=str(IGNORED),
        metadata=option("--ignored-labels", str, "Labels of your own folders that belong to no class, with commas."),
    )

    @property
    @abstractmethod
    def side_px(self) -> int:
        """Side of the square that pictures are cut to."""

    @abstractmethod
    def learner(self) -> Learner: ...

    def data(self) -> SegmentationData:
        """Raises ValueError saying what is wrong with it and what is expected."""
        if self.root is None:
            raise ValueError("semantic segmentation needs --segmentation DIR")
        ignored = [label.strip() for label in self.ignored.split(",") if label.strip()]
        wrong = [label for label in ignored if not label.isdigit() or int(label) > IGNORED]
        if wrong:
            raise ValueError(f"ignored label {wrong[0]!r} must be a number from 0 to {IGNORED}")
        numbers = [int(label) for label in ignored]
        return open_segmentation(
            self.root, layout=self.layout, split=self.split, classes_file=self.classes_file, ignored=numbers
        )

    def units(self) -> list[DataSetUnit]:
        return [DataSetUnit(self.data(), self)]

    def chance(self, unit: Unit, seed: int) -> list[Row]:
        assert isinstance(unit, DataSetUnit)
        return chance.most_frequent_class(unit.data, self.side_px)

    def about(self) -> Settings:
        return {"data": str(self.root)}

    def settings(self) -> Settings:
        return {"size": self.side_px, "split": self.split}


@dataclass(frozen=True)
class DataSetUnit:
    """A data set, measured as one: its mIoU is a figure of all its pictures together."""

    data: SegmentationData
    task: SegmentationTask

    @property
    def name(self) -> str:
        return f"{self.data.root.resolve().name} ({self.data.layout})"

    @property
    def facts(self) -> Mapping[str, int]:
        return {"train": len(self.data.train), "scored": len(self.data.scored), "classes": len(self.data.classes)}

    @property
    def steps(self) -> int:
        return self.task.learner().steps(len(self.data.train)) + len(self.data.scored)

    def fingerprint(self) -> str:
        return self.data.fingerprint()

    def evaluate(self, sources: Sequence[Source], context: Context) -> dict[str, list[Row]]:
        return evaluate(self.data, self.task.learner(), self.task.side_px, sources, context)


@dataclass(frozen=True)
class TrainedSegmentation(SegmentationTask):
    """A head is trained on frozen features of square pictures; the defaults are the attention probe's."""

    refines: ClassVar = True

    size_px: int = size_option(256)
    iterations: int | None = iterations_option(2000, "Steps of training; the paper takes up to 100,000.")
    batch: int = batch_option(32)
    learning_rate: float = rate_option(1e-4)
    memory_gb: float = memory_option()

    def __post_init__(self) -> None:
        require_positive(
            size=self.size_px, iterations=self.iterations, batch=self.batch, learning_rate=self.learning_rate
        )

    @property
    def side_px(self) -> int:
        return self.size_px


@dataclass(frozen=True)
class AttentionSegmentation(TrainedSegmentation):
    """The paper's protocol."""

    name: ClassVar = "segmentation"
    title: ClassVar = "Semantic segmentation, attention probe"
    description: ClassVar = (
        "Sources with a decoder: the attention probe; the encoder alone: a linear layer on its tokens. Trained on the train "
        "split with frozen features, scored on another over all its pixels; per cent."
    )

    embedded: ClassVar = {**EMBEDDED, "iterations": 150, "batch": 8, "learning_rate": 1e-2}

    def learner(self) -> Learner:
        # Coupled decay ends the attention: CamVid at 96 px, 150 iterations at lr 1e-2, spread of z over classes 3e-13
        # (loss 0.86, the linear share alone), decoupled 1.0 (loss 0.79).
        rules = Optimisation(self.learning_rate, weight_decay=1e-3, decoupled=True)
        return TrainedHeads("attention", rules, self.batch, self.iterations, 1, int(self.memory_gb * GIB))

    def settings(self) -> Settings:
        return {**super().settings(), "head": "attention", "optimiser": "AdamW", **_training_settings(self)}

    @classmethod
    def references(cls, settings: Settings, units: int) -> Sequence[Reference]:
        note = (
            "Per cent: linear probe on the encoder, attention probe on FlowFeat, 256 px, published encoders, up to 100,000 iterations; "
            "other data sets and shorter training do not compare. Table 4 does not say which of the 27 classes its landscape and "
            f"vegetation are. This run: {settings.get('iterations')} iterations at {settings.get('size')} px."
        )
        return references(cls.name, cls.metrics, settings, note)


@dataclass(frozen=True)
class LinearSegmentation(TrainedSegmentation):
    """The protocol of upsamplers' papers."""

    name: ClassVar = "segmentation-linear"
    title: ClassVar = "Semantic segmentation, linear probe"
    description: ClassVar = (
        "A linear layer on dense features: tokens resized bilinearly, with the decoder's map beside them where there is one. "
        "Trained on the train split with frozen features, scored on another over all its pixels; per cent."
    )
    epochs: ClassVar = 20

    embedded: ClassVar = {**EMBEDDED, "iterations": 150, "batch": 4, "learning_rate": 5e-3}

    size_px: int = size_option(448)
    iterations: int | None = iterations_option(None, f"Steps of training.  [default: {epochs} epochs]")
    batch: int = batch_option(2)
    learning_rate: float = rate_option(5e-4)

    def learner(self) -> Learner:
        rules = Optimisation(self.learning_rate, weight_decay=0.01, decoupled=True)
        return TrainedHeads("linear", rules, self.batch, self.iterations, self.epochs, int(self.memory_gb * GIB))

    def settings(self) -> Settings:
        return {**super().settings(), "head": "linear", "optimiser": "AdamW", **_training_settings(self)}


def _training_settings(task: TrainedSegmentation) -> Settings:
    iterations = task.iterations if task.iterations is not None else f"{LinearSegmentation.epochs} epochs"
    return {"iterations": iterations, "batch": task.batch, "learning_rate": task.learning_rate}


@dataclass(frozen=True)
class KnnSegmentation(SegmentationTask):
    """The Hummingbird protocol."""

    name: ClassVar = "segmentation-knn"
    title: ClassVar = "Semantic segmentation, nearest neighbours"
    description: ClassVar = (
        "No training: every cell takes the classes of its 30 nearest neighbours by cosine among the cells of the train split. "
        "With a decoder, cells hold tokens and the decoder's map and are finer. Scored on another split; per cent."
    )

    embedded: ClassVar = EMBEDDED

    size_px: int = size_option(224)
    cells_per_token: int = field(
        default=2, metadata=option("--cells-per-token", int, "Cells per side of a token, for sources with a decoder.")
    )
    memory_gb: float = field(default=4.0, metadata=option("--bank-memory", float, "GB of each source's bank at most."))

    def __post_init__(self) -> None:
        require_positive(size=self.size_px, cells_per_token=self.cells_per_token, bank_memory=self.memory_gb)

    @property
    def side_px(self) -> int:
        return self.size_px

    def learner(self) -> Learner:
        return Banks(self.cells_per_token, int(self.memory_gb * GIB))

    def settings(self) -> Settings:
        bank = {"cells_per_token": self.cells_per_token, "bank_gb": self.memory_gb}
        return {
            **super().settings(),
            "neighbours": HUMMINGBIRD.neighbors,
            "temperature": HUMMINGBIRD.temperature,
            **bank,
        }

"""What the probes of video object segmentation share: the options that name DAVIS data, the metrics, and pictures.

`vos.py` (linear probe) and `vos_knn.py` (label propagation) are tasks on the same sequences, scored alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import click
import numpy as np
from numpy.typing import NDArray

from probes.data import davis
from probes.metrics.davis import score_frame, summarise
from probes.options import CommaSeparated, option
from probes.paper import references
from probes.sources.features import Source, by_encoder
from probes.task import Context, Metric, Noun, Reference, Row, Settings, Task, Unit

PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class VosTask(Task):
    """A probe on the sequences of a DAVIS directory."""

    unit: ClassVar = Noun("sequence", "sequences")
    part: ClassVar = Noun("object", "objects")
    step: ClassVar = Noun("map", "maps")
    metrics: ClassVar = (
        Metric("JF", "J&F", percent=True),
        Metric("J", "J mean", percent=True),
        Metric("J_recall", "J recall", percent=True),
        Metric("J_decay", "J decay", percent=True, higher_is_better=False),
        Metric("F", "F mean", percent=True),
        Metric("F_recall", "F recall", percent=True),
        Metric("F_decay", "F decay", percent=True, higher_is_better=False),
    )
    headline: ClassVar = "JF"
    in_processes: ClassVar = True
    main_metrics: ClassVar = ("J", "F", "JF")
    chance_note: ClassVar = "the first annotation, kept for the whole video"

    root: Path | None = field(
        default=None, metadata=option("--davis", PATH, "Directory with JPEGImages/ and Annotations/.", data=True)
    )
    sequences: tuple[str, ...] = field(
        default=(), metadata=option("--sequences", CommaSeparated(), "Only these, with commas between them.")
    )
    list_file: Path | None = field(
        default=None, metadata=option("--list", PATH, "File that names the sequences, one a line.")
    )
    resolution: str | None = field(
        default=None, metadata=option("--resolution", str, "Folder under JPEGImages.  [default: 480p, or the only one]")
    )
    year: str | None = field(
        default=None,
        metadata=option("--year", click.Choice(["2016", "2017"]), "ImageSets list; 2016 makes one object of all."),
    )

    def chance(self, unit: Unit, seed: int) -> list[Row]:
        assert isinstance(unit, SequenceUnit)
        first, frames = unit.sequence.labels(0), range(1, len(unit.sequence) - 1)
        objects = unit.sequence.objects
        return object_rows(np.stack([score_frame(unit.sequence.labels(i), first, objects) for i in frames], axis=-1))

    @classmethod
    def references(cls, settings: Settings, units: int) -> Sequence[Reference]:
        note = (
            "Per cent, on the 30 sequences of DAVIS-2017 val at 480 pixels with published encoder weights. "
            f"This run: {units} sequences at {settings.get('height')} pixels."
        )
        return references(cls.name, cls.metrics, settings, note)

    def about(self) -> Settings:
        return {"data": str(self.root)}

    def opened(self) -> list[davis.Sequence]:
        """The sequences asked for, checked. Raises ValueError as `data/davis.py` does, or when no directory was given."""
        if self.root is None:
            raise ValueError("video object segmentation needs --davis DIR")
        return davis.open_davis(
            self.root,
            resolution=self.resolution,
            year=None if self.year is None else int(self.year),
            list_file=self.list_file,
            sequences=self.sequences,
        )

    @property
    def objects_setting(self) -> str:
        return "merged" if self.year == "2016" else "separate"


@dataclass(frozen=True)
class SequenceUnit(ABC):
    """One video of the data set; a subclass evaluates it for the sources of one encoder at a time."""

    sequence: davis.Sequence
    filmed: bool = field(default=False, kw_only=True)
    """Whether it has clips in the report."""

    @property
    def name(self) -> str:
        return self.sequence.name

    @property
    def facts(self) -> Mapping[str, int]:
        return {"frames": len(self.sequence), "objects": self.sequence.objects}

    @property
    def steps(self) -> int:
        """Feature maps per source: all frames but the last."""
        return len(self.sequence) - 1

    def fingerprint(self) -> str:
        return self.sequence.fingerprint()

    def evaluate(self, sources: Sequence[Source], context: Context) -> dict[str, list[Row]]:
        """A row per object. The first and last frame are not scored, as in the DAVIS benchmark."""
        rows: dict[str, list[Row]] = {}
        for group in by_encoder(sources):
            rows |= self._evaluate_group(group, context)
        return rows

    @abstractmethod
    def _evaluate_group(self, sources: Sequence[Source], context: Context) -> dict[str, list[Row]]:
        """Rows for sources of one encoder: the same input serves all."""


def object_rows(scores: NDArray[np.float64]) -> list[Row]:
    """A row per object of J and F [2, objects, frames], shares in [0, 1]."""
    return [_row(index, scores) for index in range(scores.shape[1])]


def _row(index: int, scores: NDArray[np.float64]) -> Row:
    j, f = summarise(scores[0, index]), summarise(scores[1, index])
    figures = {
        "JF": (j.mean + f.mean) / 2,
        "J": j.mean,
        "J_recall": j.recall,
        "J_decay": j.decay,
        "F": f.mean,
        "F_recall": f.recall,
        "F_decay": f.decay,
    }
    return Row(str(index + 1), figures)

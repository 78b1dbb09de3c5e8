"""The contract between a probe and everything around it.

A task takes data named on the command line, in units (a video, a set of images) that are measured one at a time: for every
feature source, rows of `{metric: value}` and pictures. Store, tables, page and commands know tasks through this file alone
and run over whatever metrics a task declares; `probes/tasks/` holds one file per task, `tasks/table.py` lists them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, NamedTuple, Protocol

import torch
from PIL import Image

from probes.data.batching import BatchLimit
from probes.options import METADATA_KEY, Option
from probes.sources.features import Source

Scalar = str | int | float | bool | None
Settings = Mapping[str, Scalar]
CLIP_FPS = 8


@dataclass(frozen=True)
class Metric:
    """A column. name: in files. title: in tables. percent: stored as a share, shown times 100. suffix: a unit, such as "px"."""

    name: str
    title: str
    percent: bool = False
    higher_is_better: bool = True
    decimals: int = 1
    suffix: str = ""

    def shown(self, value: float) -> float:
        """The number as people read it: per cent for shares."""
        return 100 * value if self.percent else value

    def text(self, value: float | None, *, more_decimals: int = 0) -> str:
        """The number as text; "-" for one that was not measured."""
        return "-" if value is None else f"{self.shown(value):.{self.decimals + more_decimals}f}"

    @property
    def heading(self) -> str:
        return f"{self.title} ({self.suffix})" if self.suffix else self.title


class Noun(NamedTuple):
    """A word as tables and sentences need it."""

    one: str
    many: str


@dataclass(frozen=True)
class Row:
    """Metrics of one part of a unit (an object, a class, or the whole). What was not measured is left out.

    The figure of a table is the plain mean of a metric over the rows, of all units, that have it.
    """

    part: str
    values: Mapping[str, float]

    def __post_init__(self) -> None:
        for name, value in self.values.items():
            if not math.isfinite(value):
                raise ValueError(f"{name} of {self.part!r} is {value}: a task leaves out what it cannot measure")


@dataclass(frozen=True)
class Reference:
    """Published figures that stand beside ours, and why the two may not be compared line by line."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class PictureSink(Protocol):
    """Takes the pictures and clips of one unit."""

    def save(self, group: str, caption: str, image: Image.Image, source: Source | None = None) -> None:
        """group: pictures shown side by side, such as a frame. source: whose picture it is; None for all of them."""
        ...

    def crop(self, group: str, caption: str, image: Image.Image, source: Source | None = None) -> None:
        """A small part at full resolution, kept pixel by pixel."""
        ...

    def clip(self, group: str, caption: str, images: Sequence[Image.Image], source: Source | None = None) -> None:
        """A short video of pictures of one size, `CLIP_FPS` a second."""
        ...


@dataclass(frozen=True)
class Context:
    """What a unit is measured with. step: to be told how many of `Unit.steps` are done, summed over sources. batches: how many
    pictures may go through at once."""

    device: torch.device
    seed: int
    pictures: PictureSink
    step: Callable[[int], None]
    batches: BatchLimit = field(default_factory=BatchLimit)


class Unit(Protocol):
    """What is measured, stored and resumed as one. facts: columns about it in tables, such as frames. steps: its work."""

    @property
    def name(self) -> str: ...
    @property
    def facts(self) -> Mapping[str, int]: ...
    @property
    def steps(self) -> int:
        """How much there is to do for one source, in any measure that is the same for all units of a task."""
        ...

    def fingerprint(self) -> str:
        """Changes when the data does: stored rows count while it stays the same."""
        ...

    def evaluate(self, sources: Sequence[Source], context: Context) -> dict[str, list[Row]]:
        """Rows by source name. Raises ValueError for data that cannot be read."""
        ...


@dataclass(frozen=True)
class Task(ABC):
    """A probe. A subclass is a frozen dataclass whose fields are its options on the command line (`probes/options.py`).

    name: its command and its files. description: one paragraph for the page. headline: the metric that ranks sources.
    main_metrics: columns of the CSV, the terminal and the JSON; empty for all. step: what `Unit.steps` counts.
    embedded: option fields for a run on the generator's own data (`python -m probes all --embedded DIR`); paths are relative
    to that folder. None: the probe is left out of such a run. long_units: a unit takes so long that it is measured source by
    source, so that a run which was stopped loses one source of it. named_parts: rows of one part belong together over all units
    (classes), and have a table, called parts_title. chance_note: what the answer of `chance` is. refines: it has logits of classes for
    a source to refine; in other probes a source that refines (FlowFeat++) would repeat the row of its features, and is left out. timed: its
    figures hang on the device, which becomes one of the settings. in_processes: its units can be sent to other processes (`--jobs`).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    description: ClassVar[str]
    pictures_note: ClassVar[str] = ""
    unit: ClassVar[Noun]
    part: ClassVar[Noun]
    step: ClassVar[Noun]
    metrics: ClassVar[tuple[Metric, ...]]
    headline: ClassVar[str]
    main_metrics: ClassVar[tuple[str, ...]] = ()
    embedded: ClassVar[Mapping[str, Scalar] | None] = None
    long_units: ClassVar[bool] = False
    named_parts: ClassVar[bool] = False
    parts_title: ClassVar[str] = ""
    chance_note: ClassVar[str] = ""
    refines: ClassVar[bool] = False
    timed: ClassVar[bool] = False
    in_processes: ClassVar[bool] = False

    @abstractmethod
    def units(self) -> Sequence[Unit]:
        """The data, checked as far as is cheap. Raises ValueError saying what is wrong with it and what is expected."""

    @abstractmethod
    def settings(self) -> Settings:
        """Everything, besides model and data, that shapes a score: other settings mean other results."""

    @classmethod
    def references(cls, settings: Settings, units: int) -> Sequence[Reference]:
        """Tables of published figures for results of these settings (the model's among them) over so many units."""
        return ()

    def chance(self, unit: Unit, seed: int) -> list[Row]:
        """What an answer scores that looks at no feature of `unit`: rows as a source's; empty where none is computed.

        Shown below the sources and never ranked: a source that doesn't exceed it has measured nothing.
        """
        return []

    def about(self) -> Settings:
        """What readers of the report want to know of the data and what shapes no score, such as its path."""
        return {}

    def has_data(self) -> bool:
        """Whether `all` can run it."""
        return all(getattr(self, name) is not None for name, option in self.options().items() if option.data)

    @classmethod
    def options(cls) -> dict[str, Option]:
        """Its options by field name."""
        return {f.name: replace(f.metadata[METADATA_KEY], default=f.default) for f in fields(cls)}

    @classmethod
    def metric(cls, name: str) -> Metric:
        return next(metric for metric in cls.metrics if metric.name == name)

    @classmethod
    def main(cls) -> list[Metric]:
        return [cls.metric(name) for name in cls.main_metrics] if cls.main_metrics else list(cls.metrics)

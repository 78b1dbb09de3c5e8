"""What a probe has measured so far, as one JSON file in the report's directory.

`vos.py` adds a sequence's scores as soon as it has them, so that a run which was stopped goes on where it was; `report.py`
turns the file into tables and a page at any time. Scores belong to the settings they were made with: under other settings
the file starts afresh.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from probes.metrics.davis import Statistics
from shards.files import write_atomic

FORMAT = 1


@dataclass(frozen=True)
class ObjectScore:
    """J and F of one object over the scored frames of its sequence, shares in [0, 1]."""

    J: Statistics
    F: Statistics

    @property
    def JF(self) -> float:
        return (self.J.mean + self.F.mean) / 2


@dataclass
class SequenceRecord:
    """One sequence: what it is (`fingerprint` of its files), scores per source, and pictures per frame.

    `pictures[frame][what]` is a file name relative to the report's directory; `what` is `frame`, `truth`, `<source>.mask` or
    `<source>.features`.
    """

    fingerprint: str
    frames: int
    height: int
    width: int
    scores: dict[str, list[ObjectScore]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass
class Results:
    """Everything the report of the segmentation probe is made of.

    settings: what shapes a score (model, sizes, iterations, ...). about: what doesn't (paths, device, versions).
    selection and sources: what the last run was asked for; `sequences` may hold more.
    """

    settings: dict[str, Any]
    about: dict[str, Any] = field(default_factory=dict)
    selection: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    sequences: dict[str, SequenceRecord] = field(default_factory=dict)

    def complete(self) -> list[str]:
        """The selected sequences that have a score of every source asked for, in order."""
        return [
            name
            for name in self.selection
            if name in self.sequences and all(source in self.sequences[name].scores for source in self.sources)
        ]

    def save(self, path: Path) -> None:
        write_atomic(path, json.dumps({"format": FORMAT, "probe": "vos", **asdict(self)}, indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> Results:
        """Raises ValueError when the file isn't one that `save` wrote, FileNotFoundError when there's none."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["format"] != FORMAT:
                raise ValueError(
                    f"{path} has format {stored['format']}, this program reads {FORMAT}: run the probe again"
                )
            sequences = {name: _record(entry) for name, entry in stored["sequences"].items()}
            return Results(stored["settings"], stored["about"], stored["selection"], stored["sources"], sequences)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path} is damaged or no results file ({error!r}): remove it and run the probe again"
            ) from error


def _record(entry: dict[str, Any]) -> SequenceRecord:
    scores = {
        source: [ObjectScore(Statistics(**one["J"]), Statistics(**one["F"])) for one in objects]
        for source, objects in entry["scores"].items()
    }
    return SequenceRecord(**{**entry, "scores": scores})


def differing(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The settings in which two runs differ, in one line; empty when they agree."""
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {old.get(name)} -> {new.get(name)}" for name in names)

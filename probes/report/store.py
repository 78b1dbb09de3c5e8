"""What a task has measured so far, as one JSON file per task in the report's directory.

`run.py` adds a unit's rows as soon as it has them, so that a run which was stopped goes on where it was; `build.py` turns the
files into tables and a page at any time. Rows belong to the settings they were made with: under other settings the file
starts afresh.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from probes.task import Row, Scalar, Settings
from shards.files import write_atomic

FORMAT = 2


class OtherFormat(ValueError):
    """A results file of another version of this program."""


@dataclass(frozen=True)
class Picture:
    """One stored picture: `file` is relative to the report's directory, `source` is empty where it belongs to all sources."""

    group: str
    caption: str
    source: str
    file: str


@dataclass
class UnitRecord:
    """One unit: what it is (`fingerprint` of its data, `facts` about it), rows and seconds per source, pictures."""

    fingerprint: str
    facts: dict[str, int] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)

    def add_pictures(self, fresh: list[Picture]) -> None:
        """A picture of the same group, caption and source takes the place of the older one."""
        by_place = {(one.group, one.caption, one.source): one for one in [*self.pictures, *fresh]}
        self.pictures = list(by_place.values())


@dataclass
class Results:
    """Everything the report of a task is made of.

    settings: what shapes a score (model, sizes, iterations, ...). about: what doesn't (paths, device, versions).
    selection and sources: what the last run was asked for; `units` may hold more.
    """

    task: str
    settings: dict[str, Scalar]
    about: dict[str, Scalar] = field(default_factory=dict)
    selection: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    units: dict[str, UnitRecord] = field(default_factory=dict)

    def complete(self) -> list[str]:
        """The selected units that have rows of every source asked for, in order."""
        return [
            name
            for name in self.selection
            if name in self.units and all(source in self.units[name].rows for source in self.sources)
        ]

    def rows(self, source: str) -> list[Row]:
        """Every row of the completely measured units, in order."""
        return [row for name in self.complete() for row in self.units[name].rows[source]]

    def save(self, path: Path) -> None:
        write_atomic(path, json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> Results:
        """Raises OtherFormat, or ValueError for what `save` never wrote; FileNotFoundError where there is no file."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["format"] != FORMAT:
                raise OtherFormat(
                    f"{path} has format {stored['format']}, this program reads {FORMAT}: run the probe again"
                )
            units = {name: _unit_record(entry) for name, entry in stored["units"].items()}
            lists = stored["selection"], stored["sources"]
            return Results(stored["task"], stored["settings"], stored["about"], *lists, units)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path} is damaged or no results file ({error!r}): remove it and run the probe again"
            ) from error


def _unit_record(entry: dict[str, Any]) -> UnitRecord:
    rows = {source: [Row(**one) for one in several] for source, several in entry["rows"].items()}
    return UnitRecord(**{**entry, "rows": rows, "pictures": [Picture(**one) for one in entry["pictures"]]})


def results_file(out: Path, task: str) -> Path:
    return out / f"{task}.json"


def differing(old: Settings, new: Settings) -> str:
    """The settings in which two runs differ, in one line; empty when they agree."""
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {old.get(name)} -> {new.get(name)}" for name in names)


def mean_of(rows: list[Row], metric: str) -> float | None:
    """The plain mean of a metric over the rows that have it; None where none has."""
    values = [row.values[metric] for row in rows if metric in row.values]
    return sum(values) / len(values) if values else None

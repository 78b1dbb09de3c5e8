"""Records as tables want them: the rows of one task under one protocol, unit by unit and source by source.

`records.py` reads the lines; `results_of` sorts them by protocol, the one that was asked for last first; `tables.py`, `page.py` and
`markdown.py` show what comes out. Rows of different protocols never meet in one `Results`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from probes.report.records import CHANCE, Picture, Records, RunLine, UnitLine
from probes.sources.table import title_of
from probes.task import Row, Scalar, Settings

SHORT = 8
"""Letters of a weights' hash in tables."""


@dataclass
class UnitRecord:
    """One unit: what it is (`fingerprint` of its data, `facts` about it), rows and seconds per source, pictures."""

    fingerprint: str
    facts: dict[str, int] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)

    def add_pictures(self, fresh: Iterable[Picture]) -> None:
        """A picture of the same group, caption and source takes the place of the older one."""
        by_place = {(one.group, one.caption, one.source): one for one in [*self.pictures, *fresh]}
        self.pictures = list(by_place.values())


@dataclass
class Results:
    """One task under one protocol.

    settings: what shapes a score (of the model that was measured last, too). about: what doesn't (paths, device, versions).
    selection: names of the units. sources: names of the table's rows; those of models before the last carry its hash.
    """

    task: str
    settings: dict[str, Scalar]
    about: dict[str, Scalar] = field(default_factory=dict)
    selection: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    units: dict[str, UnitRecord] = field(default_factory=dict)
    digest: str = ""
    weights: dict[str, str] = field(default_factory=dict)
    """SHA-256 by row, and which part of the file."""
    titles: dict[str, str] = field(default_factory=dict)
    """Of rows whose title is not their source's."""

    def title(self, source: str) -> str:
        return self.titles.get(source) or title_of(source)

    def complete(self) -> list[str]:
        """The selected units that have rows of every source asked for, in order."""
        return [
            name
            for name in self.selection
            if name in self.units and all(source in self.units[name].rows for source in self.sources)
        ]

    def rows(self, source: str) -> list[Row]:
        """Every row of the completely measured units, in order."""
        return [row for name in self.complete() for row in self.units[name].rows.get(source, [])]

    @property
    def has_chance(self) -> bool:
        return bool(self.complete()) and all(CHANCE in self.units[name].rows for name in self.complete())

    def seconds(self, source: str) -> float:
        return sum(record.seconds.get(source, 0.0) for record in self.units.values())


def results_of(records: Records, task: str) -> list[Results]:
    """A `Results` per protocol, the one of the last run first."""
    by_digest: dict[str, list[RunLine]] = {}
    for run in records.runs:
        if run.task == task:
            earlier = by_digest.pop(run.digest, [])
            by_digest[run.digest] = [*earlier, run]
    return [_results(records, runs) for runs in reversed(by_digest.values())]


@dataclass(frozen=True)
class _RowOf:
    """A row of a table: a source on certain weights. run: the last that asked for it."""

    source: str
    weights: str
    run: RunLine


def _results(records: Records, runs: Sequence[RunLine]) -> Results:
    """The rows of the last run, as far as they are measured; and of earlier ones those that are measured on every unit."""
    last = runs[-1]
    protocol = last.protocol
    settings = {**last.model, **last.settings, "seed": last.seed}
    results = Results(last.task, settings, {**last.about, **last.versions}, list(last.data), digest=last.digest)
    found = {(source, run.weights[source]): run for run in runs for source in run.weights}
    rows = [_RowOf(source, last.weights[source], last) for source in last.weights]
    rows += [_RowOf(*key, run) for key, run in found.items() if last.weights.get(key[0]) != key[1]]
    results.units = {name: UnitRecord(fingerprint) for name, fingerprint in last.data.items()}
    for row in [*rows, _RowOf(CHANCE, "", last)]:
        lines = _lines(records, protocol.conditions, row, last.data)
        wanted = row.run is last or len(lines) == len(last.data)
        if not wanted:
            continue
        # Another source of the same model keeps its name; the same source of another model cannot.
        plain = row.run is last or (row.run.model == last.model and row.source not in last.weights)
        name = row.source if plain else f"{row.source}@{row.weights[:SHORT]}"
        if row.source != CHANCE:
            results.sources.append(name)
            results.weights[name] = row.weights
            if not plain:
                results.titles[name] = f"{title_of(row.source)}, {row.run.model.get('model', '')} {row.weights[:SHORT]}"
        _take(results, name, lines)
    return results


def _lines(records: Records, conditions: str, row: _RowOf, data: dict[str, str]) -> list[UnitLine]:
    keys = ((conditions, row.weights, row.source, unit, fingerprint) for unit, fingerprint in data.items())
    return [records.units[key] for key in keys if key in records.units]


def _take(results: Results, name: str, lines: Sequence[UnitLine]) -> None:
    for line in lines:
        record = results.units[line.unit]
        record.facts = record.facts or line.facts
        record.rows[name] = line.rows
        record.seconds[name] = line.seconds
        record.add_pictures(
            Picture(one.group, one.caption, name if one.source else "", one.file) for one in line.pictures
        )


def differing(old: Settings, new: Settings) -> str:
    """The settings in which two runs differ, in one line; empty when they agree."""
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {old.get(name)} -> {new.get(name)}" for name in names)


def mean_of(rows: list[Row], metric: str) -> float | None:
    """The plain mean of a metric over the rows that have it; None where none has."""
    values = [row.values[metric] for row in rows if metric in row.values]
    return sum(values) / len(values) if values else None

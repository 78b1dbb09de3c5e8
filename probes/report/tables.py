"""Tables of a task: from stored results to rows of text, and the CSV. `markdown.py` and `page.py` set these rows.

Columns are the metrics that the task declares; figures are plain means over the rows (objects, classes, ...) of all units.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from probes.report.store import Results, mean_of
from probes.sources.table import title_of
from probes.task import Task

CSV_MORE_DECIMALS = 2
"""Files carry this many decimals more than tables."""


@dataclass(frozen=True)
class Section:
    """One task of a report with what was measured of it."""

    task: type[Task]
    results: Results

    def mean(self, source: str, metric: str) -> float | None:
        return mean_of(self.results.rows(source), metric)

    def unit_mean(self, unit: str, source: str) -> str:
        """The headline metric of one unit, as text."""
        rows = self.results.units[unit].rows.get(source, [])
        return self.task.metric(self.task.headline).text(mean_of(rows, self.task.headline))


@dataclass(frozen=True)
class Table:
    header: list[str]
    rows: list[list[str]]
    best: int | None = None
    """The row to set in bold."""


def csv_text(section: Section) -> str:
    """A row per source, unit and part, then a row per source with unit=mean and no part."""
    task, results = section.task, section.results
    columns = task.main()
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("source", task.unit.one, task.part.one, *(metric.name for metric in columns)))

    def figures(values: dict[str, float | None]) -> list[str]:
        known = ((metric, values[metric.name]) for metric in columns)
        return ["" if v is None else metric.text(v, more_decimals=CSV_MORE_DECIMALS) for metric, v in known]

    for source in results.sources:
        for name in results.complete():
            for row in results.units[name].rows[source]:
                writer.writerow((source, name, row.part, *figures({m.name: row.values.get(m.name) for m in columns})))
        writer.writerow((source, "mean", "", *figures({m.name: section.mean(source, m.name) for m in columns})))
    return buffer.getvalue()


def main_table(section: Section) -> Table:
    """The comparison of sources, the best by the headline metric marked."""
    task = section.task
    rows = [
        [title_of(source), *(metric.text(section.mean(source, metric.name)) for metric in task.metrics)]
        for source in section.results.sources
    ]
    return Table(["features", *(metric.heading for metric in task.metrics)], rows, best_source(section))


def best_source(section: Section) -> int | None:
    """The place of the best source by the headline metric; None where it was not measured."""
    headline = section.task.metric(section.task.headline)
    sign = 1 if headline.higher_is_better else -1
    means = [section.mean(source, headline.name) for source in section.results.sources]
    known = {place: sign * value for place, value in enumerate(means) if value is not None}
    return max(known, key=lambda place: known[place]) if known else None


def unit_table(section: Section) -> Table:
    """The headline metric per unit and source, beside the facts of the unit."""
    results = section.results
    complete = results.complete()
    facts = list(dict.fromkeys(fact for name in complete for fact in results.units[name].facts))
    header = [section.task.unit.one, *facts, *map(title_of, results.sources)]
    rows = []
    for name in complete:
        record = results.units[name]
        about = [str(record.facts.get(fact, "")) for fact in facts]
        rows.append([name, *about, *(section.unit_mean(name, source) for source in results.sources)])
    return Table(header, rows)


def settings_table(section: Section) -> Table:
    every = {**section.results.settings, **section.results.about}
    return Table(["setting", "value"], [[name, str(value)] for name, value in every.items()])


def scope_note(section: Section) -> str:
    """Over how much the means were taken."""
    task, results = section.task, section.results
    parts, units = len(results.rows(results.sources[0])), len(results.complete())
    return f"Means over {_count(parts, task.part)} of {_count(units, task.unit)}."


def coverage_note(section: Section) -> str:
    """Says so when units are missing from the tables; empty otherwise."""
    results = section.results
    missing = len(results.selection) - len(results.complete())
    if not missing:
        return ""
    asked = f"{missing} of {len(results.selection)} {section.task.unit.many}"
    return f"Incomplete: {asked} are not measured yet; run the probe again to go on."


def _count(number: int, noun: tuple[str, str]) -> str:
    return f"{number} {noun[0] if number == 1 else noun[1]}"

"""Tables of a task: from stored results to rows of text, and the CSV. `markdown.py` and `page.py` set these rows.

Columns are the metrics that the task declares; figures are plain means over the rows (objects, classes, ...) of all units.
Rows of one table share a protocol; others have tables of their own (`Section.others`) and are ranked with nobody here.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from probes import embedded
from probes.report.records import CHANCE, FILE
from probes.report.store import Results, differing, mean_of
from probes.task import Task

CHANCE_TITLE = "chance: no features"
NEVER_RANKED = (
    "Rows of one table share a protocol (task, data, sizes, parameters, seed), which its digest stands for. Rows under different "
    "digests are never ranked against each other."
)
SHORT_HASH, WHOLE_HASH = 12, 64
CSV_MORE_DECIMALS = 2
"""Files carry this many decimals more than tables."""


@dataclass(frozen=True)
class Section:
    """One task of a report with what was measured of it. others: the same task under other protocols, the latest first."""

    task: type[Task]
    results: Results
    others: list[Section] = field(default_factory=list)

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
    """A row per source, unit and part, then a row per source with unit=mean and no part; the protocol's digest at the end."""
    task, results = section.task, section.results
    columns = task.main()
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("source", task.unit.one, task.part.one, *(metric.name for metric in columns), "protocol"))

    def figures(values: dict[str, float | None]) -> list[str]:
        known = ((metric, values[metric.name]) for metric in columns)
        return ["" if v is None else metric.text(v, more_decimals=CSV_MORE_DECIMALS) for metric, v in known]

    for source in [*results.sources, *_chance(results)]:
        for name in results.complete():
            for row in results.units[name].rows[source]:
                values = figures({m.name: row.values.get(m.name) for m in columns})
                writer.writerow((source, name, row.part, *values, results.digest))
        means = figures({m.name: section.mean(source, m.name) for m in columns})
        writer.writerow((source, "mean", "", *means, results.digest))
    return buffer.getvalue()


def _chance(results: Results) -> list[str]:
    return [CHANCE] if results.has_chance else []


def main_table(section: Section) -> Table:
    """The comparison of sources, the best by the headline metric marked; chance below them."""
    task, results = section.task, section.results
    rows = [
        [title(results, source), *(metric.text(section.mean(source, metric.name)) for metric in task.metrics)]
        for source in [*results.sources, *_chance(results)]
    ]
    return Table(["features", *(metric.heading for metric in task.metrics)], rows, best_source(section))


def title(results: Results, source: str) -> str:
    return CHANCE_TITLE if source == CHANCE else results.title(source)


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
    header = [section.task.unit.one, *facts, *map(results.title, results.sources)]
    rows = []
    for name in complete:
        record = results.units[name]
        about = [str(record.facts.get(fact, "")) for fact in facts]
        rows.append([name, *about, *(section.unit_mean(name, source) for source in results.sources)])
    return Table(header, rows)


def part_table(section: Section) -> Table | None:
    """The headline metric per part (class), over all units; None where a task's parts have no names of their own."""
    task, results = section.task, section.results
    if not task.named_parts:
        return None
    headline = task.metric(task.headline)
    measured = {
        source: [row for row in results.rows(source) if headline.name in row.values] for source in results.sources
    }
    parts = list(dict.fromkeys(row.part for rows in measured.values() for row in rows))
    rows = []
    for part in parts:
        means = (mean_of([row for row in measured[s] if row.part == part], headline.name) for s in results.sources)
        rows.append([part, *map(headline.text, means)])
    return Table([task.part.one, *map(results.title, results.sources)], rows)


def settings_table(section: Section) -> Table:
    every = {"protocol": section.results.digest, **section.results.settings, **section.results.about}
    return Table(["setting", "value"], [[name, str(value)] for name, value in every.items()])


def made_table(sections: Sequence[Section]) -> Table:
    """How every row of the report came to be: protocol, weights, seconds."""
    header = ["probe", "protocol", "features", "weights (SHA-256)", "units", "seconds"]
    rows = []
    for section in (one for first in sections for one in (first, *first.others)):
        results = section.results
        for source in results.sources:
            whole = results.weights.get(source, "")
            weights = (
                whole[:SHORT_HASH] + whole[WHOLE_HASH:]
            )  # and which decoder of the file; all of it is in results.csv
            about = [results.digest, results.title(source), weights, str(len(results.complete()))]
            rows.append([section.task.name, *about, f"{results.seconds(source):.1f}"])
    return Table(header, rows)


def parts_title(section: Section) -> str:
    """What the table of parts is called."""
    task = section.task
    return task.parts_title or f"{task.metric(task.headline).heading} per {task.part.one}"


def scope_note(section: Section) -> str:
    """Over how much the means were taken."""
    task, results = section.task, section.results
    parts, units = len(results.rows(results.sources[0])), len(results.complete())
    chance = f" Chance: {task.chance_note}." if task.chance_note and results.has_chance else ""
    return f"Means over {_count(parts, task.part)} of {_count(units, task.unit)}. Protocol {results.digest}.{chance}"


def coverage_note(section: Section) -> str:
    """Says so when units are missing from the tables; empty otherwise."""
    results = section.results
    missing = len(results.selection) - len(results.complete())
    if not missing:
        return ""
    asked = f"{missing} of {len(results.selection)} {section.task.unit.many}"
    return f"Incomplete: {asked} are not measured yet; run the probe again to go on."


def difference_note(section: Section, other: Section) -> str:
    """What keeps a table apart from the one above it."""
    changes = differing(other.results.settings, section.results.settings)
    same_names = other.results.selection == section.results.selection
    data = "" if same_names else f"other {section.task.unit.many}"
    told = "; ".join(filter(None, [changes, data])) or "other data under the same names"
    return f"Differs from the table above: {told}."


def embedded_notes(sections: Sequence[Section]) -> list[str]:
    """A sentence per folder of the generator's that tables stand on."""
    folders = dict.fromkeys(
        str(one.results.about[embedded.ABOUT]) for one in sections if embedded.ABOUT in one.results.about
    )
    return [embedded.note(Path(folder)) for folder in folders]


def made_notes(sections: Sequence[Section]) -> list[str]:
    """Sentences on how the report came to be."""
    seconds = sum(one.results.seconds(source) for one in sections for source in one.results.sources)
    models = dict.fromkeys(str(one.results.settings.get("model", "?")) for one in sections)
    return [
        f"Tables and pictures are made of {FILE} beside this page, a line per measurement (weights' hash, protocol, seed, "
        f"versions, duration), by the command python -m probes report --out DIR. Model: {', '.join(models)}.",
        f"Measuring what the first tables show took {seconds:.0f} s.",
    ]


def _count(number: int, noun: tuple[str, str]) -> str:
    return f"{number} {noun[0] if number == 1 else noun[1]}"

"""Our figures beside the paper's: per source and metric ours, theirs, the difference, and what keeps the two apart.

The paper's come from `probes/paper.py`. A difference is taken only where task, sizes, parameters and data are the paper's; else its
place says what is not. Encoders that the paper has no figures for give no rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from probes.paper import PAPER, PROTOCOLS, Published, published
from probes.report.tables import Section, Table


@dataclass(frozen=True)
class Beside:
    """ours, theirs: as tables show them. difference: ours - theirs, None where the protocols differ."""

    source: str
    published: Published
    ours: float
    difference: float | None


def besides(section: Section) -> list[Beside]:
    results, task = section.results, section.task
    other = what_differs(section)
    found = []
    for figure in published(task.name, str(results.settings.get("variant"))):
        for source in results.sources:
            mean = section.mean(source, figure.metric)
            if source.split("@")[0] == figure.source and mean is not None:
                ours = task.metric(figure.metric).shown(mean)
                found.append(Beside(source, figure, ours, None if other else ours - figure.value))
    return found


def what_differs(section: Section) -> list[str]:
    """Why a table is not of the paper's protocol; empty where it is."""
    results, protocol = section.results, PROTOCOLS.get(section.task.name)
    if protocol is None:
        return ["the paper has no such table"]
    facts = [results.units[name].facts for name in results.complete()]
    return protocol.differing(results.settings, facts, section.task.unit.many)


def beside_table(section: Section) -> Table | None:
    """None where the paper has no figure for these features."""
    rows = []
    for one in besides(section):
        metric = section.task.metric(one.published.metric)
        digits = metric.decimals
        trained = f" ({one.published.trained_on})" if one.published.trained_on else ""
        difference = "-" if one.difference is None else f"{one.difference:+.{digits}f}"
        title = section.results.title(one.source)
        rows.append(
            [f"{title}{trained}", metric.heading, f"{one.ours:.{digits}f}", f"{one.published.value:g}", difference]
        )
    return Table(["features", "metric", "here", "paper", "difference"], rows) if rows else None


def beside_note(section: Section) -> str:
    """What the table above stands on."""
    other = what_differs(section)
    protocol = PROTOCOLS.get(section.task.name)
    data = f" on {protocol.data}" if protocol else ""
    if not other:
        return f"Paper: {PAPER}{data}, the same protocol as far as this program can tell."
    return f"Paper: {PAPER}{data}. Not the paper's protocol ({'; '.join(other)}): no difference is taken."

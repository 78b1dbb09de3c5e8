"""Our figures beside the paper's: per source and metric ours, theirs, the difference, and what keeps the two apart.

The paper's come from `probes/paper.py`. A difference is taken only where task, sizes, parameters and data are the paper's; else its
place says what is not. Encoders that the paper has no figures for give no rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from probes.paper import PAPER, PROTOCOLS, PaperProtocol, Published, protocol_of, published
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
    protocol = _protocol(section)
    for figure in published(task.name, results.settings):
        comparable = protocol is not None and not other and protocol.compares(figure.metric, results.settings)
        for source in results.sources:
            mean = section.mean(source, figure.metric)
            if source.split("@")[0] == figure.source and mean is not None:
                ours = task.metric(figure.metric).shown(mean)
                found.append(Beside(source, figure, ours, ours - figure.value if comparable else None))
    return found


def _protocol(section: Section) -> PaperProtocol | None:
    key = protocol_of(section.task.name, section.results.settings)
    return None if key is None else PROTOCOLS[key]


def what_differs(section: Section) -> list[str]:
    """Why a table is not of the paper's protocol; empty where it is."""
    results, protocol = section.results, _protocol(section)
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
        rows.append([f"{title}{trained}", metric.heading, f"{one.ours:.{digits}f}", one.published.text, difference])
    return Table(["features", "metric", "here", "paper", "difference"], rows) if rows else None


def beside_note(section: Section) -> str:
    """What the table above stands on."""
    other = what_differs(section)
    protocol = _protocol(section)
    data = f" on {protocol.data}" if protocol else ""
    if not other:
        assert protocol is not None
        bound = [
            section.task.metric(name).title
            for name in protocol.device_bound
            if not protocol.compares(name, section.results.settings)
        ]
        but = f" {', '.join(bound)}: on its {protocol.device}, so no difference is taken." if bound else ""
        return f"Paper: {PAPER}{data}, the same protocol as far as this program can tell.{but}"
    return f"Paper: {PAPER}{data}. Not the paper's protocol ({'; '.join(other)}): no difference is taken."

"""A sweep as one static HTML page: the table, the figures as dots, a training curve per row. No script, no address outside."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from common.page import document, table
from probes.sweep import tables
from probes.sweep.charts import Curve, curve_chart, dot_chart
from probes.sweep.comparison import Line
from probes.sweep.probe import SweepProbe
from trainer import SweepRecord

CHART_STYLE = """
svg .base { stroke: var(--dim); stroke-dasharray: 4 4; }
svg .mean { stroke: var(--ink); stroke-width: 2; } svg circle { fill: var(--bar); fill-opacity: .7; }
svg polyline { stroke-opacity: .75; }
.curves figcaption { overflow-wrap: anywhere; }
tr.doubtful td { color: var(--dim); }
"""

DOUBTFUL = ("inside the spread", "one seed", "not judged")


def page(
    record: SweepRecord, probe: SweepProbe, lines: Sequence[Line], curves: dict[str, dict[int, Curve]], data: str
) -> str:
    """curves: row → seed → (step, loss)."""
    metric = tables.heading(probe.metric)
    charts = [(line.row, curve_chart(line.row.title, curves.get(line.row.name, {}))) for line in lines]
    figures = [
        f"<figure>{chart}<figcaption>{escape(row.title)}: {escape('; '.join(row.settings)) or 'as the base'}</figcaption></figure>"
        for row, chart in charts
        if chart
    ]
    missing = "".join(f'<p class="warn">{escape(note)}</p>' for note in tables.notes(lines))
    body = f"""<h1>Sweep {escape(record.name)}</h1>
<p class="dim">{escape(tables.scope(record, data))}</p>
{missing}
{_table(probe, lines)}
<p class="dim">{escape(tables.RULE)}</p>
<h2>{escape(metric)} of every seed</h2>
<div class="scroll">{dot_chart(lines, metric, probe.metric.decimals)}</div>
<p class="dim">A dot per seed, a stroke at their mean; the dashed line is the baseline's mean.</p>
<h2>Training</h2>
<p class="dim">Total loss over steps, a line per seed. Rows with other terms in the loss have other scales.</p>
<div class="curves">{"".join(figures)}</div>"""
    return document(f"Sweep {record.name}", body, style=CHART_STYLE)


def _table(probe: SweepProbe, lines: Sequence[Line]) -> str:
    kinds = {}
    for number, line in enumerate(lines):
        kinds[number] = "best" if line.verdict == "baseline" else "doubtful" if line.verdict in DOUBTFUL else ""
    return table(tables.headings(probe, lines), tables.cells(probe, lines), row_kinds=kinds)

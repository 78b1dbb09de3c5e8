"""A sweep's lines as rows of text: for the CSV, for Markdown, for the terminal and the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from probes.report.markdown import escape, markdown_table
from probes.sweep.comparison import Line, Spread
from probes.sweep.probe import SweepProbe
from probes.task import Metric
from trainer import SweepRecord

MARK = {"inside the spread": "≈", "one seed": "?", "above": "▲", "below": "▼"}

RULE = (
    "Differences are taken seed by seed (same initial weights, same order of samples) and averaged; in brackets the lowest and the "
    "highest. ≈ marks a difference inside the seeds' spread: it is no larger than the range over seeds of the differences, of the "
    "baseline or of the row, so the rows cannot be told apart. ? marks a difference of one seed, whose spread is unknown."
)


def heading(metric: Metric) -> str:
    """A metric as its task calls it, and which way is better where that is not upwards."""
    return metric.heading if metric.higher_is_better else f"{metric.heading}, lower is better"


def headings(probe: SweepProbe, lines: Sequence[Line]) -> list[str]:
    paper = ["paper"] if _has_paper(lines) else []
    return [
        "row",
        "seeds",
        heading(probe.metric),
        "lowest … highest",
        "to baseline",
        "verdict",
        *paper,
        *(heading(probe.task.metric(name)) for name in _others(lines)),
    ]


def cells(probe: SweepProbe, lines: Sequence[Line]) -> list[list[str]]:
    """One row of text per line; figures with as many decimals as the probe gives them."""
    rows, digits = [], probe.metric.decimals
    for line in lines:
        figure, change = line.figure, line.difference
        paper = [("-" if line.row.paper is None else f"{line.row.paper:+.{digits}f}")] if _has_paper(lines) else []
        rows.append(
            [
                line.row.title,
                str(len(line.by_seed)),
                "-" if figure is None else f"{figure.mean:.{digits}f}",
                _range(figure, digits),
                "-"
                if change is None
                else f"{MARK.get(line.verdict, '')} {change.mean:+.{digits}f} {_signed_range(change, digits)}".strip(),
                line.verdict,
                *paper,
                *(
                    f"{line.others[name]:.{probe.task.metric(name).decimals}f}" if name in line.others else "-"
                    for name in _others(lines)
                ),
            ]
        )
    return rows


def notes(lines: Sequence[Line]) -> list[str]:
    """What is missing, a sentence per row."""
    return [f"{line.row.title}: {line.note}" for line in lines if line.note]


def markdown(record: SweepRecord, probe: SweepProbe, lines: Sequence[Line], data: str) -> str:
    parts = [f"# Sweep {escape(record.name)}", escape(scope(record, data))]
    parts += [markdown_table(headings(probe, lines), cells(probe, lines)), RULE]
    parts += ["\n".join(f"- {escape(note)}" for note in notes(lines))] if notes(lines) else []
    return "\n\n".join(parts) + "\n"


def scope(record: SweepRecord, data: str) -> str:
    """What was measured, in one sentence."""
    options = ", ".join(f"{name} {_plain(value)}" for name, value in record.probe.options)
    what = f"Probe {record.probe.task}" + (f" ({options})" if options else "")
    return f"{what}, on {data}." if data else f"{what}."


def csv_text(metric: str, lines: Sequence[Line]) -> str:
    """A line per row, full precision; the figure of every seed in a column of its own."""
    others = _others(lines)
    seeds = sorted({run.seed for line in lines for run in line.row.runs})
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    header = [
        "row",
        "title",
        "source",
        "settings",
        "shards",
        "seeds",
        f"{metric}_mean",
        f"{metric}_low",
        f"{metric}_high",
    ]
    header += ["difference_mean", "difference_low", "difference_high", "verdict", "paper_difference", "note"]
    writer.writerow([*header, *(f"{name}_mean" for name in others), *(f"{metric}_seed_{seed}" for seed in seeds)])
    for line in lines:
        row = line.row
        about = [row.name, row.title, row.source, "; ".join(row.settings), row.shards, len(line.by_seed)]
        figures = [*_three(line.figure), *_three(line.difference)]
        rest = [line.verdict, "" if row.paper is None else row.paper, line.note]
        means = [_number(line.others.get(name)) for name in others]
        writer.writerow([*about, *figures, *rest, *means, *(_number(line.by_seed.get(seed)) for seed in seeds)])
    return buffer.getvalue()


def _others(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(name for line in lines for name in line.others))


def _has_paper(lines: Sequence[Line]) -> bool:
    return any(line.row.paper is not None for line in lines)


def _range(known: Spread | None, digits: int) -> str:
    return "-" if known is None or known.count == 1 else f"{known.low:.{digits}f} … {known.high:.{digits}f}"


def _signed_range(known: Spread, digits: int) -> str:
    return "" if known.count == 1 else f"({known.low:+.{digits}f} … {known.high:+.{digits}f})"


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _three(known: Spread | None) -> list[str]:
    return ["", "", ""] if known is None else [_number(known.mean), _number(known.low), _number(known.high)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"

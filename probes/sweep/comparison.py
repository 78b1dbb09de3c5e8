"""Figures of rows and seeds in, the lines of a sweep's table out: mean, spread, difference to the baseline, verdict.

A difference is taken seed by seed: the same seed means the same initial weights and the same order of samples, so what all
rows share with it cancels out. It is marked as inside the spread where another choice of seeds could as well have made it: where
its mean is no larger than the range, from the lowest to the highest seed, of the differences, of the baseline or of the row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from probes.sweep.judge import Figures
from trainer import RowRecord, SweepRecord

Verdict = Literal["baseline", "above", "below", "inside the spread", "one seed", "not judged"]


@dataclass(frozen=True)
class Spread:
    """A mean and the range it is of."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def width(self) -> float:
        return self.high - self.low


@dataclass(frozen=True)
class Line:
    """A row of the table. figure: the metric that decides; others: means of the rest. note: why there is no figure."""

    row: RowRecord
    by_seed: dict[int, float]
    figure: Spread | None
    difference: Spread | None
    verdict: Verdict
    others: dict[str, float]
    note: str


def spread(values: Iterable[float]) -> Spread | None:
    """None of nothing."""
    known = list(values)
    return Spread(sum(known) / len(known), min(known), max(known), len(known)) if known else None


def difference(row: dict[int, float], baseline: dict[int, float]) -> Spread | None:
    """Of the seeds that both have."""
    return spread(row[seed] - baseline[seed] for seed in sorted(row.keys() & baseline.keys()))


def verdict_of(change: Spread | None, row: Spread | None, baseline: Spread | None) -> Verdict:
    """change: the differences. With few seeds their own range can be small by luck, so those of the figures count as well."""
    if change is None or row is None or baseline is None:
        return "not judged"
    if change.count == 1:
        return "one seed"
    if abs(change.mean) <= max(change.width, row.width, baseline.width):
        return "inside the spread"
    return "above" if change.mean > 0 else "below"


def compare(record: SweepRecord, metric: str, figures: dict[str, dict[int, Figures]]) -> list[Line]:
    """A line per row, in the file's order. metric: the one that decides. ValueError where it was not measured."""
    for seeds in figures.values():
        for known in seeds.values():
            if metric not in known:
                raise ValueError(
                    f"probe.metric = {metric!r} is not among the stored figures of the probe {record.probe.task!r} "
                    f"({', '.join(known)}): it could not be measured on this data; choose another"
                )
    of_rows = {row.name: {s: known[metric] for s, known in figures.get(row.name, {}).items()} for row in record.rows}
    baseline = of_rows[record.baseline]
    lines = []
    for row in record.rows:
        values, is_baseline = of_rows[row.name], row.name == record.baseline
        change = None if is_baseline else difference(values, baseline)
        figure = spread(values.values())
        verdict: Verdict = (
            "baseline" if is_baseline and values else verdict_of(change, figure, spread(baseline.values()))
        )
        names = dict.fromkeys(name for known in figures.get(row.name, {}).values() for name in known if name != metric)
        others = {name: _mean(known[name] for known in figures[row.name].values() if name in known) for name in names}
        lines.append(Line(row, values, figure, change, verdict, others, _note(row, values)))
    return lines


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known)


def _note(row: RowRecord, values: dict[int, float]) -> str:
    """What is missing in a row, in one sentence; empty where nothing is."""
    if row.left_out:
        return f"left out: it {row.left_out}"
    parts = [f"seed {run.seed} failed: {_short(run.error)}" for run in row.runs if run.status == "failed"]
    missing = [run for run in row.runs if run.seed not in values and run.status != "failed"]
    untrained = [str(run.seed) for run in missing if row.trained and run.status != "finished"]
    unjudged = [str(run.seed) for run in missing if not row.trained or run.status == "finished"]
    by = f" (by {row.trained_by})" if row.trained_by else ""
    parts += [f"seed {', '.join(untrained)} not trained yet{by}"] if untrained else []
    parts += [f"seed {', '.join(unjudged)} not judged yet"] if unjudged else []
    return "; ".join(parts)


def _short(text: str, most: int = 160) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"

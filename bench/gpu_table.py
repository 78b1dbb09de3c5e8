"""Outcomes of the parts as files, rewritten after every part, and as the one table that is printed last.

rows.csv: a line per figure, and one per part with its seconds and how it ended. summary.json: the same, for machines. table.txt: what
is printed. Nothing is lost if the whole is stopped halfway.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path

from bench.gpu_run import Outcome

HEADLINES = (
    "_shards_samples_per_s", "_share_of_matmul_rate", "_waiting_every_step_over_not", "_compiled_over_eager",
    "_compiled_relative_difference", "_bf16_over_fp32", "flow_waits", "engine_over_alone", "cached_over_online",
    "break_even_epoch", "halvings", "JF_",
)  # fmt: skip
"""Parts of the names of figures that stand below all others, with their notes: what is asked for first."""

COLUMNS = ("part", "bench", "figure", "value", "unit", "note", "machine")


def write_outcomes(out: Path, outcomes: Sequence[Outcome], facts: dict[str, str]) -> None:
    """facts: of the machine and the call."""
    with open(out / "rows.csv", "w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for outcome in outcomes:
            ended = f"{outcome.status}: {outcome.reason}" if outcome.reason else outcome.status
            writer.writerow((outcome.part, "gpu", "seconds", f"{outcome.seconds:.1f}", "s", ended, ""))
            for row in outcome.rows:
                writer.writerow(
                    (outcome.part, row.bench, row.figure, f"{row.value:.6g}", row.unit, row.note, row.machine)
                )
    summary = {"facts": facts, "parts": [_jsonable(outcome) for outcome in outcomes]}
    (out / "summary.json").write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
    (out / "table.txt").write_text(table(outcomes, facts))


def _jsonable(outcome: Outcome) -> dict[str, object]:
    """JSON knows neither infinity (an epoch that never comes) nor what is no number: null."""
    rows = [{**asdict(row), "value": row.value if isfinite(row.value) else None} for row in outcome.rows]
    return {**asdict(outcome), "rows": rows}


def table(outcomes: Sequence[Outcome], facts: dict[str, str]) -> str:
    """Per part one line on how it ended, then its figures; notes are in rows.csv. The headlines and the count come last."""
    lines = [f"{name}: {value}" for name, value in facts.items()]
    for outcome in outcomes:
        ended = outcome.status if not outcome.reason else f"{outcome.status.upper()}: {outcome.reason}"
        lines += ["", f"{outcome.part}  {outcome.seconds:.0f} s of {outcome.limit_s:.0f}  {ended}"]
        lines += [f"  {row.figure:58s} {row.value:11.5g} {row.unit}".rstrip() for row in outcome.rows]
    first = [row for outcome in outcomes for row in outcome.rows if any(name in row.figure for name in HEADLINES)]
    lines += ["", *(f"{row.figure}  {row.value:.5g} {row.unit}  {row.note}".rstrip() for row in first)]
    good = sum(outcome.status == "ok" for outcome in outcomes)
    others = ", ".join(f"{outcome.part} {outcome.status}" for outcome in outcomes if outcome.status != "ok")
    lines += ["", f"{good} of {len(outcomes)} parts ended well" + (f"; {others}" if others else "")]
    return "\n".join(lines) + "\n"

"""The training behind a report: from a run's log.jsonl to curves as inline SVG and a sentence.

Shown where a run is named (`--run DIR`), whose log `trainer` wrote; a report remembers it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from probes.sweep.charts import Curve, curve_chart
from trainer import loss_curve


@dataclass(frozen=True)
class Training:
    """curve: (step, total loss)."""

    name: str
    curve: Curve

    def charts(self) -> list[str]:
        """SVG; none for a run that logged fewer than two losses."""
        chart = curve_chart("the run", {0: self.curve})
        return [chart] if chart else []

    def summary(self) -> str:
        (first, start), (last, end) = self.curve[0], self.curve[-1]
        return f"total loss {start:.3g} at step {first}, {end:.3g} at step {last}."


def training_of(run_dir: Path | None) -> Training | None:
    """None without a run, or where its log holds no loss."""
    curve = [] if run_dir is None else loss_curve(run_dir)
    return Training(str(run_dir), curve) if curve else None

"""Tables of the segmentation probe: from stored results to rows of text, and the CSV.

`report.py` and `page.py` set these rows as Markdown and HTML. Figures are per cent; means are plain means over objects of
all sequences, as the DAVIS benchmark takes them. The paper's figures stand beside ours for orientation: they are of
DAVIS-2017 val with published encoders at 480 pixels.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probes.report.store import ObjectScore, Results
from probes.sources.flowfeat import TITLES

CSV_COLUMNS = ("source", "sequence", "object", "J", "F", "JF")

PAPER_BACKBONES = {
    "mae_vitb16": "MAE-B16",
    "dino_vits16": "DINO-S16",
    "dino_vitb16": "DINO-B16",
    "dinov2_vits14": "DINO2-S14",
    "dinov2_vitb14": "DINO2-B14",
}
PAPER_LINEAR_PROBE: dict[str, tuple[float, float | None, float | None, float | None]] = {
    "MAE-B16": (40.8, None, None, 53.8),
    "DINO-S16": (49.6, None, 54.1, 56.2),
    "DINO-B16": (52.3, None, 55.5, 56.9),
    "DINO2-S14": (57.5, 58.7, 65.8, 64.6),
    "DINO2-B14": (61.6, None, 65.7, 66.1),
}
"""J&F of the linear probe on DAVIS-2017 val (FlowFeat, NeurIPS 2025): encoder alone, + random decoder, + FlowFeat trained on
YouTube-VOS, + FlowFeat trained on Kinetics."""
PAPER_COLUMNS = ("encoder alone", "+ random decoder", "+ FlowFeat (YouTube-VOS)", "+ FlowFeat (Kinetics)")


@dataclass(frozen=True)
class Summary:
    """One row of the main table, per cent."""

    source: str
    objects: int
    JF: float
    J: float
    J_recall: float
    J_decay: float
    F: float
    F_recall: float
    F_decay: float


def scores_of(results: Results, source: str) -> list[ObjectScore]:
    """Every object of the completely measured sequences, in order."""
    return [score for name in results.complete() for score in results.sequences[name].scores[source]]


def summarise_source(results: Results, source: str) -> Summary:
    """Plain means over objects; J&F is the mean of mean J and mean F."""
    scores = scores_of(results, source)
    table = np.array([(s.J.mean, s.J.recall, s.J.decay, s.F.mean, s.F.recall, s.F.decay) for s in scores])
    J, J_recall, J_decay, F, F_recall, F_decay = (100 * float(v) for v in table.mean(axis=0))
    return Summary(source, len(scores), (J + F) / 2, J, J_recall, J_decay, F, F_recall, F_decay)


def sequence_mean(scores: Sequence[ObjectScore]) -> float:
    """J&F of one sequence, per cent."""
    return 100 * float(np.mean([score.JF for score in scores]))


def csv_text(results: Results) -> str:
    """A row per source, sequence and object (numbered from 1), then a row per source with sequence=mean and no object."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for source in results.sources:
        for name in results.complete():
            for number, score in enumerate(results.sequences[name].scores[source], start=1):
                figures = (f"{100 * value:.3f}" for value in (score.J.mean, score.F.mean, score.JF))
                writer.writerow((source, name, number, *figures))
        mean = summarise_source(results, source)
        writer.writerow((source, "mean", "", *(f"{value:.3f}" for value in (mean.J, mean.F, mean.JF))))
    return buffer.getvalue()


def main_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of the comparison of sources."""
    header = ["features", "J&F", "J mean", "J recall", "J decay", "F mean", "F recall", "F decay"]
    rows = []
    for source in results.sources:
        s = summarise_source(results, source)
        figures = (s.JF, s.J, s.J_recall, s.J_decay, s.F, s.F_recall, s.F_decay)
        rows.append([TITLES[source], *(f"{value:.1f}" for value in figures)])
    return header, rows


def paper_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of the paper's figures; the row of this run's backbone is starred."""
    ours = PAPER_BACKBONES.get(str(results.settings.get("variant")))
    rows = []
    for backbone, figures in PAPER_LINEAR_PROBE.items():
        name = f"{backbone} *" if backbone == ours else backbone
        rows.append([name, *("-" if value is None else f"{value:.1f}" for value in figures)])
    return ["backbone", *PAPER_COLUMNS], rows


def sequence_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """(header, rows): J&F per sequence and source."""
    header = ["sequence", "frames", "objects", *(TITLES[source] for source in results.sources)]
    rows = []
    for name in results.complete():
        record = results.sequences[name]
        figures = [f"{sequence_mean(record.scores[source]):.1f}" for source in results.sources]
        rows.append([name, str(record.frames), str(len(record.scores[results.sources[0]])), *figures])
    return header, rows


def paper_note(results: Results) -> str:
    """Why the two tables may not be compared line by line, in one sentence."""
    variant = results.settings.get("variant")
    ours = PAPER_BACKBONES.get(str(variant))
    backbone = (
        f"the starred row is this run's backbone ({variant})"
        if ours
        else f"none of them is this run's backbone ({variant})"
    )
    return (
        f"J&F on the 30 sequences of DAVIS-2017 val at 480 pixels with published encoder weights; {backbone}. "
        f"This run: {len(results.complete())} sequences at {results.settings.get('height')} pixels."
    )


def coverage_note(results: Results) -> str:
    """Says so when sequences are missing from the tables; empty otherwise."""
    missing = len(results.selection) - len(results.complete())
    if not missing:
        return ""
    return f"Incomplete: {missing} of {len(results.selection)} sequences are not measured yet; run the probe again to go on."

"""`results.csv`: the means of every table of a report, a line per probe, protocol, source and metric, beside the paper's figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from probes.report.beside import besides
from probes.report.records import CHANCE
from probes.report.tables import CSV_MORE_DECIMALS, Section

HEADER = ("probe", "protocol", "source", "weights", "metric", "value", "paper", "paper trained on", "difference")


def results_csv(sections: Sequence[Section]) -> str:
    """Values as tables show them (per cent for shares), with more decimals. Lines of different protocols do not compare."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HEADER)
    for section in (one for first in sections for one in (first, *first.others)):
        results = section.results
        beside = {(one.source, one.published.metric): one for one in reversed(besides(section))}
        for source in [*results.sources, *([CHANCE] if results.has_chance else [])]:
            for metric in section.task.metrics:
                mean = section.mean(source, metric.name)
                if mean is None:
                    continue
                paper = beside.get((source, metric.name))
                theirs = ["", "", ""]
                if paper is not None:
                    difference = "" if paper.difference is None else f"{paper.difference:+.{metric.decimals}f}"
                    theirs = [paper.published.text, paper.published.trained_on, difference]
                value = metric.text(mean, more_decimals=CSV_MORE_DECIMALS)
                where = [section.task.name, results.digest, source, results.weights.get(source, "")]
                writer.writerow([*where, metric.name, value, *theirs])
    return buffer.getvalue()

"""Figures of quality that a command has written already, as rows of results.csv: a report's means, or a judged sweep's table.

    python bench/quality.py runs/clips/report --name clips --metric JF
    python bench/quality.py runs/sweeps/table3

Comes in: a report of the probes (results.csv, records.jsonl) or a sweep's directory (sweep.csv). Nothing is measured again: the note
of a row says when it was judged and how. Goes out: one row per source, or per row of the sweep with its distance to the baseline.
Set BENCH_COMMIT where another commit than this one has trained and judged.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record
from common.command import one_line_errors
from probes.report import records
from probes.tasks.table import TASKS

SHOWN_SETTINGS = ("height", "iterations", "size", "pairs")
"""Of a probe, in notes."""


def table(path: Path, how: str) -> list[dict[str, str]]:
    """Lines of a CSV file; ValueError that says how to make it where there is none."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist: {how}")
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def unit(task: str, metric: str) -> str:
    """What a table's figure is in: per cent for shares."""
    known = next(each for kind in TASKS if kind.name == task for each in kind.metrics if each.name == metric)
    return known.suffix or ("%" if known.percent else "")


def conditions(report: Path, task: str, digest: str) -> str:
    """Settings and day of the last run of a probe under one protocol, as a note tells them."""
    run = [each for each in records.read(report).runs if (each.task, each.digest) == (task, digest)][-1]
    return f"{_settings(run)} seed={run.seed}, {len(run.data)} units, judged {run.at[:10]}"


def _settings(run: records.RunLine) -> str:
    shown = [f"{name}={run.settings[name]}" for name in SHOWN_SETTINGS if name in run.settings]
    return " ".join([run.task, *shown])


def _judged(sweep: Path) -> str:
    """How and when the rows of a sweep were judged: by the last run of any of their reports."""
    runs = [run for report in sorted(sweep.glob("rows/*/*/report")) for run in records.read(report).runs]
    last = max(runs, key=lambda run: run.at, default=None)
    return f"{_settings(last)}, judged {last.at[:10]}" if last else "no report is left"


def record_report(report: Path, name: str, metrics: tuple[str, ...]) -> int:
    """Means of every source and metric that were asked for; how many there were."""
    lines = table(report / "results.csv", f"`python -m probes report --out {report}` writes it")
    found = [line for line in lines if line["metric"] in metrics]
    for line in found:
        figure = f"{name}_{line['probe']}_{line['source']}_{line['metric']}"
        note = conditions(report, line["probe"], line["protocol"])
        record("quality", figure, float(line["value"]), unit(line["probe"], line["metric"]), note)
    return len(found)


def _lattice(run: Path) -> list[float]:
    """The share that the log's last step tells; nothing where the row was not trained."""
    log = run / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []
    return [line["lattice"] for line in lines if "lattice" in line][-1:]


def record_sweep(sweep: Path, name: str) -> int:
    """The metric that the sweep was judged by, of every row; its distance to the baseline, seed by seed; and the patch lattice of
    what was trained, in the last step of the log."""
    lines = table(sweep / "sweep.csv", "judge the sweep first (make sweep ... DAVIS=dir)")
    metric = next(column.removesuffix("_mean") for column in lines[0] if column.endswith("_mean"))
    stored = json.loads((sweep / "sweep.json").read_text(encoding="utf-8"))
    in_unit, trained = unit(stored["probe"]["task"], metric), {row["name"]: row["runs"] for row in stored["rows"]}
    judged = [line for line in lines if line[f"{metric}_mean"]]
    how = _judged(sweep)
    for line in judged:
        figure = f"{name}: {line['row']}, {metric}"
        note = f"{line['seeds']} seeds, {line[f'{metric}_low']} to {line[f'{metric}_high']}; {line['title']}; {how}"
        record("quality", figure, float(line[f"{metric}_mean"]), in_unit, note)
        if line["difference_mean"]:
            spread = f"{line['difference_low']} to {line['difference_high']}, {line['verdict']}"
            record("quality", f"{figure} over baseline", float(line["difference_mean"]), in_unit, spread)
        lattice = [100 * share for run in trained[line["row"]] for share in _lattice(sweep / run["directory"])]
        if lattice:
            each = ", ".join(f"{share:.1f}" for share in lattice)
            record(
                "quality",
                f"{name}: {line['row']}, lattice",
                sum(lattice) / len(lattice),
                "%",
                f"last step, seeds: {each}",
            )
    return len(judged)


@click.command(help=__doc__)
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--name", default="", help="What the figures are called by; by default the directory, of a report its run."
)
@click.option("--metric", "metrics", multiple=True, default=("JF",), show_default=True, help="Of a report; repeatable.")
@one_line_errors(out_of_memory="close something")
def main(directory: Path, name: str, metrics: tuple[str, ...]) -> None:
    if (directory / "sweep.json").is_file():
        count = record_sweep(directory, name or directory.resolve().name)
    else:
        run = directory.resolve()
        count = record_report(directory, name or (run.parent if run.name == "report" else run).name, metrics)
    if not count:
        raise ValueError(f"{directory} holds no figure of {', '.join(metrics)}: it is not judged yet, or name --metric")


if __name__ == "__main__":
    main()

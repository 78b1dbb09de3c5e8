"""python -m probes sweep: judge the runs of a sweep, and write its table as CSV, Markdown and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from common.children import slots
from common.command import PlainError, nearest, one_line_errors
from common.lock import directory_lock
from common.progress import ProgressDisplay
from probes.sweep import tables
from probes.sweep.charts import Curve
from probes.sweep.comparison import Line, compare
from probes.sweep.judge import Data, figures_of, judge
from probes.sweep.page import page
from probes.task import Task
from shards.files import write_atomic
from trainer import SweepRecord, loss_curve, read_record

PATH = click.Path(path_type=Path)


def sweep_command(known: Sequence[type[Task]]) -> click.Command:
    """`python -m probes sweep`; known: the probes that a sweep may name."""

    @click.command("sweep")
    @click.option("--sweep", "out", type=PATH, required=True, help="Directory of a sweep.")
    @click.option("--davis", type=PATH, help="Data to judge on; without it the table is built of stored figures.")
    @click.option(
        "--jobs", type=click.IntRange(min=0), default=0, help="Probes at a time; 0: one per GPU, one on a CPU."
    )
    @click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto.")
    @one_line_errors(out_of_memory="use fewer --jobs or a smaller height in the sweep's [probe]")
    def run(out: Path, davis: Path | None, jobs: int, device: str) -> None:
        """Probe every finished run of a sweep; write sweep.csv, sweep.md and index.html. What is judged is not judged again."""
        record = read_record(out)
        names = [task.name for task in known]
        if record.probe.task not in names:
            raise ValueError(
                f"the sweep in {out} wants the probe {record.probe.task!r}; {nearest(record.probe.task, names)}"
            )
        failed = {} if davis is None else _judge(record, out, Data(davis, device), jobs)
        lines = compare(record, figures_of(record, out))
        if not any(line.by_seed for line in lines):
            raise ValueError(f"no run of the sweep in {out} has been judged: " + _why(record, failed, davis))
        write_tables(record, lines, out, str(davis or ""))
        click.echo(_terminal(tables.headings(record, lines), tables.cells(lines)))
        for note in tables.notes(lines):
            click.echo(note)
        click.echo(f"table: {out / 'sweep.csv'}, {out / 'sweep.md'}, {out / 'index.html'}")
        if failed:
            raise PlainError(f"{len(failed)} probes failed: " + "; ".join(f"{n}: {e}" for n, e in failed.items()))

    return run


def _judge(record: SweepRecord, out: Path, data: Data, jobs: int) -> dict[str, str]:
    if not data.davis.is_dir():
        raise ValueError(f"no directory {data.davis}: --davis takes one with JPEGImages/ and Annotations/")
    places = slots(jobs, use_gpus=data.device != "cpu")
    with directory_lock(out, "a sweep") as lock, ProgressDisplay("judging", "runs") as progress:
        return judge(record, out, data, places, progress, held=lock)


def write_tables(record: SweepRecord, lines: list[Line], out: Path, data: str) -> None:
    """sweep.csv, sweep.md and index.html."""
    curves: dict[str, dict[int, Curve]] = {
        row.name: {run.seed: loss_curve(out / run.directory) for run in row.runs if run.status == "finished"}
        for row in record.rows
    }
    write_atomic(out / "sweep.csv", tables.csv_text(record, lines))
    write_atomic(out / "sweep.md", tables.markdown(record, lines, data))
    write_atomic(out / "index.html", page(record, lines, curves, data))


def _why(record: SweepRecord, failed: dict[str, str], davis: Path | None) -> str:
    if failed:
        name, error = next(iter(failed.items()))
        return f"{name}: {error}"
    trained = any(run.status == "finished" for row in record.rows for run in row.runs)
    if not trained:
        return "none is trained yet"
    return "name the data with --davis DIR" if davis is None else "nothing was measured"


def _terminal(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    )

"""python -m probes sweep: judge the runs of a sweep, and write its table as CSV, Markdown and a page."""

from __future__ import annotations

from pathlib import Path

import click

from common.children import directory_lock, slots
from common.command import one_line_errors
from common.progress import ProgressDisplay
from probes.sweep import tables
from probes.sweep.charts import Curve
from probes.sweep.comparison import Line, compare
from probes.sweep.judge import Data, figures_of, judge
from probes.sweep.page import page
from shards.files import write_atomic
from trainer import SweepRecord, loss_curve, read_record


@click.command("sweep")
@click.option("--sweep", "out", type=click.Path(path_type=Path), required=True, help="Directory of a sweep.")
@click.option(
    "--davis",
    type=click.Path(path_type=Path),
    help="Data to judge on; without it the table is built of stored figures.",
)
@click.option("--jobs", type=click.IntRange(min=0), default=0, help="Probes at a time; 0: one per GPU, one on a CPU.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto.")
@one_line_errors(out_of_memory="use fewer --jobs or a smaller height in the sweep's [probe]")
def sweep_command(out: Path, davis: Path | None, jobs: int, device: str) -> None:
    """Probe every finished run of a sweep; write sweep.csv, sweep.md and index.html. Judged runs are not judged again."""
    failed: dict[str, str] = {}
    record = read_record(out)
    if davis is not None:
        if not davis.is_dir():
            raise ValueError(f"no directory {davis}: --davis takes one with JPEGImages/ and Annotations/")
        with directory_lock(out, "a sweep") as lock, ProgressDisplay("judging", "runs") as progress:
            failed = judge(record, out, Data(davis, device), slots(jobs, use_gpus=device != "cpu"), progress, lock)
    lines = compare(record, figures_of(record, out))
    if not any(line.by_seed for line in lines):
        raise ValueError(f"no run of the sweep in {out} has been judged: " + _why(record, failed, davis))
    write_tables(record, lines, out, str(davis or ""))
    click.echo(_terminal(tables.headings(record, lines), tables.cells(lines)))
    for note in tables.notes(lines):
        click.echo(note)
    click.echo(f"table: {out / 'sweep.csv'}, {out / 'sweep.md'}, {out / 'index.html'}")
    if failed:
        raise click.ClickException(f"{len(failed)} probes failed: " + "; ".join(f"{n}: {e}" for n, e in failed.items()))


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

"""python -m probes sweep | check-sweep: judge the runs of a sweep, and write its table as CSV, Markdown and a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from common.children import slots
from common.command import PlainError, one_line_errors
from common.lock import directory_lock
from common.progress import ProgressDisplay
from probes.options import Option
from probes.sweep import tables
from probes.sweep.charts import Curve
from probes.sweep.comparison import Line, compare
from probes.sweep.judge import Data, figures_of, judge
from probes.sweep.page import page
from probes.sweep.probe import DataFlags, SweepProbe, sweep_probe
from probes.task import Task
from shards.files import write_atomic
from trainer import SweepRecord, loss_curve, read_record, read_sweep_file

PATH = click.Path(path_type=Path)


def sweep_commands(known: Sequence[type[Task]]) -> list[click.Command]:
    """`python -m probes sweep` and `check-sweep`; known: the probes that a sweep may name."""
    flags = _data_flags(known)

    def with_data(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(flags.values()):
            command = click.option(option.flag, option.parameter, type=option.kind, help=option.help)(command)
        return command

    def named(values: dict[str, Path | str | None]) -> DataFlags:
        """The data that was given, by flag."""
        return {option.flag: path for option in flags.values() if (path := values[option.parameter]) is not None}

    @click.command("sweep")
    @click.option("--sweep", "out", type=PATH, required=True, help="Directory of a sweep.")
    @click.option(
        "--jobs", type=click.IntRange(min=0), default=0, help="Probes at a time; 0: one per GPU, one on a CPU."
    )
    @click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto.")
    @with_data
    @one_line_errors(out_of_memory="use fewer --jobs or a smaller height in the sweep's [probe]")
    def sweep(out: Path, jobs: int, device: str, **values: Path | str | None) -> None:
        """Probe every finished run of a sweep; write sweep.csv, sweep.md and index.html. What is judged is not judged again.

        Without data the table is built of stored figures.
        """
        record = read_record(out)
        probe, data = sweep_probe(record.probe, known), named(values)
        if data:
            probe.check_data(data)
        judged = data or not probe.needs_data
        failed = _judge(record, probe, out, Data(data, device), jobs) if judged else {}
        lines = compare(record, probe.metric.name, figures_of(record, out))
        if not any(line.by_seed for line in lines):
            raise ValueError(f"no run of the sweep in {out} has been judged: " + _why(record, failed, probe, data))
        write_tables(record, probe, lines, out, ", ".join(map(str, data.values())))
        click.echo(_terminal(tables.headings(probe, lines), tables.cells(probe, lines)))
        for note in tables.notes(lines):
            click.echo(note)
        click.echo(f"table: {out / 'sweep.csv'}, {out / 'sweep.md'}, {out / 'index.html'}")
        if failed:
            raise PlainError(f"{len(failed)} probes failed: " + "; ".join(f"{n}: {e}" for n, e in failed.items()))

    @click.command("check-sweep")
    @click.argument("sweep_file", metavar="FILE", type=PATH)
    @with_data
    @click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
    @one_line_errors(out_of_memory="check the data by itself")
    def check(sweep_file: Path, overrides: tuple[str, ...], **values: Path | str | None) -> None:
        """Whether a sweep FILE can be judged, before its rows are trained: its probe, options, metric and, where given, data."""
        try:
            probe = sweep_probe(read_sweep_file(sweep_file, overrides=overrides).probe, known)
        except ValueError as error:
            raise ValueError(str(error) if str(sweep_file) in str(error) else f"{sweep_file}: {error}") from error
        data = named(values)
        if data:
            probe.check_data(data)
        click.echo(f"{sweep_file}: judged by {probe.task.name}, {probe.metric.heading}")

    return [sweep, check]


def _data_flags(known: Sequence[type[Task]]) -> dict[str, Option]:
    """The options that name data, of all tasks, by flag."""
    return {option.flag: option for task in known for option in task.options().values() if option.data}


def _judge(record: SweepRecord, probe: SweepProbe, out: Path, data: Data, jobs: int) -> dict[str, str]:
    places = slots(jobs, use_gpus=data.device != "cpu")
    with directory_lock(out, "a sweep") as lock, ProgressDisplay("judging", "runs") as progress:
        return judge(record, probe, out, data, places, progress, held=lock)


def write_tables(record: SweepRecord, probe: SweepProbe, lines: list[Line], out: Path, data: str) -> None:
    """sweep.csv, sweep.md and index.html."""
    curves: dict[str, dict[int, Curve]] = {
        row.name: {run.seed: loss_curve(out / run.directory) for run in row.runs if run.status == "finished"}
        for row in record.rows
    }
    write_atomic(out / "sweep.csv", tables.csv_text(probe.metric.name, lines))
    write_atomic(out / "sweep.md", tables.markdown(record, probe, lines, data))
    write_atomic(out / "index.html", page(record, probe, lines, curves, data))


def _why(record: SweepRecord, failed: dict[str, str], probe: SweepProbe, data: DataFlags) -> str:
    if failed:
        name, error = next(iter(failed.items()))
        return f"{name}: {error}"
    trained = any(run.status == "finished" for row in record.rows for run in row.runs)
    if not trained:
        return "none is trained yet"
    needed = " ".join(f"{option.flag} DIR" for option in probe.task.options().values() if option.data)
    return "nothing was measured" if data else f"name the data with {needed}"


def _terminal(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    )

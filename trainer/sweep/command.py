"""python -m trainer sweep: train every row of a sweep file over cached shards. Exit status 0 only if all rows are trained."""

from __future__ import annotations

from pathlib import Path

import click

from common.command import INTERRUPTED, one_line_errors

SOME_FAILED = 3
"""Exit status besides 0, 1 (nothing was begun) and INTERRUPTED: all is over but some runs failed."""


@click.command("sweep")
@click.argument("sweep_file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--shards",
    multiple=True,
    help="Shard set of all rows that name none of their own, a folder or an address; or several.",
)
@click.option(
    "--set", "sets", multiple=True, metavar="NAME=DIR", help="A shard set that rows ask for by name; once per set."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Directory of the sweep.  [default: runs/sweeps/<file's name>]"
)
@click.option(
    "--jobs", type=click.IntRange(min=0), default=0, help="Runs at a time; 0: one per visible GPU, one on a CPU."
)
@click.option("--base", type=click.Path(path_type=Path), help="A config to build on instead of the file's base.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@one_line_errors(out_of_memory="use a smaller train.batch_size, a larger train.accumulate or fewer --jobs")
def sweep_command(
    sweep_file: Path,
    shards: tuple[str, ...],
    sets: tuple[str, ...],
    out: Path | None,
    jobs: int,
    base: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Train every row of a sweep FILE, each in a process of its own; the same command again continues.

    KEY=VALUE holds for all rows that do not set the key themselves: train.steps=500, seeds=[0,1], probe.height=160. A row
    that fails is named and the others go on. `python -m probes sweep` judges the runs.
    """
    # heavy: the trainer with torch, which --help can do without
    from common.children import slots
    from trainer.sweep.plan import parse_sets, plan_sweep
    from trainer.sweep.run_sweep import run_sweep
    from trainer.sweep.sweep_file import read_sweep_file
    from trainer.sweep.view import SweepView

    file = read_sweep_file(sweep_file, base=base, overrides=overrides)
    plan = plan_sweep(file, out or Path("runs/sweeps") / file.name, shards, parse_sets(sets))
    use_gpus = any(run.config.train.device != "cpu" for run in plan.runs)
    with SweepView(plan, len(slots(jobs, use_gpus=use_gpus))) as view:
        outcome = run_sweep(plan, view, jobs=jobs)
    for name, error in outcome.failed.items():
        click.echo(f"failed: {name}: {error}", err=True)
    counts = f"{outcome.trained} trained, {outcome.skipped} were trained before, {len(outcome.failed)} failed"
    click.echo(f"{plan.out}: {counts}" + (f", {len(plan.left_out)} rows left out" if plan.left_out else ""))
    if outcome.interrupted:
        click.echo("interrupted; the same command continues", err=True)
        raise click.exceptions.Exit(INTERRUPTED)
    if outcome.failed:
        click.echo(f"Error: {len(outcome.failed)} of {len(plan.runs)} runs failed (named above)", err=True)
        raise click.exceptions.Exit(SOME_FAILED)

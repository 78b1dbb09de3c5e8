"""What the README's two first commands take, and what they say: `make demo`, then `make probe-all`, in a fresh checkout.

    git clone . ../fresh && python bench/front_door.py ../fresh
    python bench/front_door.py ../fresh --only probe-all --venv .venv     # with an environment that is ready already

Comes in: a checkout in which the command has not run yet (a second run would only continue the first; `git clone` makes one).
What happens: the environment is set up, untimed; then each command runs while the memory of all its processes is read every three
seconds. Goes out: rows of results.csv: clock time, CPU time of all processes that it waited for, peak of their proportional set sizes
together, and the J&F that the demo's report holds. The load of the machine at start and end stands in the note.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.extraction_memory import watch
from bench.quality import record_report
from bench.record import record
from common.command import PlainError, one_line_errors
from common.cores import usable_cores
from probes.report import records

WATCHED_EVERY_S = 3.0


def report_of(checkout: Path, seed: int) -> Path:
    return checkout / "runs" / ("demo" if seed == 0 else f"demo-{seed}") / "report"


def check_fresh(checkout: Path, seed: int, target: str) -> None:
    """ValueError where the command would continue what is there, or misses what it needs."""
    report = report_of(checkout, seed)
    probed = {run.task for run in records.read(report).runs}
    if target == "demo" and report.parent.exists():
        raise ValueError(f"{report.parent} exists, so make demo would only continue: name a fresh clone")
    if target == "probe-all" and not (report.parent / "flowfeat.safetensors").is_file():
        raise ValueError(f"{report.parent} holds no model: run `make demo` there first (without --only)")
    if target == "probe-all" and probed - {"vos"}:
        raise ValueError(
            f"{report} holds {', '.join(sorted(probed))} already: name a clone that make demo alone has seen"
        )


def make(checkout: Path, venv: Path | None) -> list[str]:
    """make, with an environment that is there already in place of the checkout's own."""
    command = ["make", "--no-print-directory"]
    return [*command, f"VENV={venv.resolve()}", "-o", f"{venv.resolve()}/.ready"] if venv else command


def timed(command: list[str], checkout: Path, target: str) -> None:
    """Run it, with its output in a file beside its data; rows of what it took. PlainError where it fails."""
    log = checkout / f"{target}.log"
    before, load, began = resource.getrusage(resource.RUSAGE_CHILDREN), os.getloadavg()[0], time.monotonic()
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=checkout, stdout=output, stderr=subprocess.STDOUT)
        seen = watch(process, WATCHED_EVERY_S)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        last = (log.read_text(errors="replace").splitlines() or ["nothing was printed"])[-1]
        raise PlainError(
            f"{' '.join(command)} in {checkout} ended with {process.returncode}: {last} ({log} has it all)"
        )
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    name = target.replace("-", "_")
    note = (
        f"after installation; {usable_cores()} cores, load {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end"
    )
    record("front_door", f"{name}_wall_s", wall, "s", note)
    record("front_door", f"{name}_cpu_s", cpu, "s", note)
    record(
        "front_door",
        f"{name}_peak_mib",
        max(seen["all"].total),
        "MiB",
        "proportional set sizes of all processes together",
    )


@click.command(help=__doc__)
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", type=click.Choice(["demo", "probe-all"]), help="One of the two commands.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--venv", type=click.Path(exists=True, file_okay=False, path_type=Path), help="An environment that is ready."
)
@one_line_errors(out_of_memory="close something")
def main(checkout: Path, only: str | None, seed: int, venv: Path | None) -> None:
    targets = [only] if only else ["demo", "probe-all"]
    check_fresh(checkout, seed, targets[0])
    command = make(checkout, venv)
    if venv is None:
        subprocess.run([*command, "install"], cwd=checkout, check=True)
    for target in targets:
        timed([*command, target, f"SEED={seed}"], checkout, target)
    if "demo" in targets:
        record_report(report_of(checkout, seed), f"demo_seed{seed}", ("JF",))


if __name__ == "__main__":
    main()

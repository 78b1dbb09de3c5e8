"""Finished runs of a sweep in, probe figures out: one `python -m probes TASK` per run, in a process of its own.

Figures are stored beside each run's report with what they were made of, so that an interrupted judging goes on, and a
model, a probe or data that changed is judged again. A probe that fails is named and the others go on.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import sleep

from common.children import Children, Ended, Slot, Task, last_line, threads_each
from common.progress import ProgressDisplay
from probes.sweep.probe import DataFlags, SweepProbe
from shards.files import sha256_of, write_atomic
from shards.storage import is_url
from trainer import RowRecord, RunRecord, SweepRecord

FIGURES = "sweep-figures.json"
MODEL = "flowfeat.safetensors"
LOOK_EVERY_S = 0.2

Figures = dict[str, float]


@dataclass(frozen=True)
class Job:
    """One run to be judged: the model and the source that stand for this row and seed."""

    row: str
    seed: int
    source: str
    model: Path
    report: Path

    @property
    def name(self) -> str:
        return f"{self.row}, seed {self.seed}"


@dataclass(frozen=True)
class Data:
    """What is judged on, and the device."""

    flags: DataFlags
    device: str = "auto"


def jobs_of(record: SweepRecord, out: Path) -> list[Job]:
    """Every run that can be judged. A row that is not trained takes the baseline's models, seed by seed."""
    jobs = []
    for row in record.rows:
        for run in row.runs:
            trained = run if row.trained else _same_seed(record.baseline_row, run.seed)
            if trained is not None and trained.status == "finished":
                model = out / trained.directory / MODEL
                jobs.append(Job(row.name, run.seed, row.source, model, out / run.directory / "report"))
    return jobs


def _same_seed(row: RowRecord, seed: int) -> RunRecord | None:
    return next((run for run in row.runs if run.seed == seed), None)


def probe_command(probe: SweepProbe, job: Job, data: Data, threads: int) -> tuple[str, ...]:
    """The command line of one probe."""
    command = [sys.executable, "-m", "probes", probe.task.name, "--model", str(job.model), "--out", str(job.report)]
    command += ["--sources", job.source, "--seed", str(job.seed), "--device", data.device, "--json"]
    command += [*probe.data_arguments(data.flags), *probe.arguments()]
    command += ["--threads", str(threads)] if threads else []
    return tuple(command)


Command = Callable[[SweepProbe, Job, Data, int], tuple[str, ...]]


def judge(
    record: SweepRecord,
    probe: SweepProbe,
    out: Path,
    data: Data,
    places: list[Slot],
    progress: ProgressDisplay,
    *,
    held: int | None = None,
    command: Command = probe_command,
) -> dict[str, str]:
    """Judge what has not been judged yet; name of a job → the last line of its probe where it failed.

    held: the descriptor of a lock on `out`, for the probes to hold on to.
    """
    jobs = {job.name: job for job in jobs_of(record, out)}
    ingredients = {name: _ingredients(record, job, data) for name, job in jobs.items()}
    todo = deque(job for name, job in jobs.items() if _stored(job.report, ingredients[name]) is None)
    failed: dict[str, str] = {}
    threads = threads_each(places)
    progress.begin(len(jobs), len(jobs) - len(todo))
    with Children(places, held=held) as children:
        while todo or children.running:
            while todo and children.free:
                job = todo.popleft()
                children.start(Task(job.name, command(probe, job, data, threads), *_outputs(job)))
            for end in children.ended():
                job = jobs[end.task.name]
                figures, reason = _outcome(job, end)
                if figures is None:
                    failed[job.name] = reason
                    progress.say(f"{job.name}: FAILED: {reason}")
                else:
                    stored = {"ingredients": ingredients[job.name], "figures": figures}
                    write_atomic(job.report / FIGURES, json.dumps(stored, indent=1) + "\n")
                    shown = ", ".join(f"{name} {value:.1f}" for name, value in figures.items())
                    progress.say(f"{job.name}: {shown}")
                progress.advance()
            sleep(LOOK_EVERY_S)
    return failed


def figures_of(record: SweepRecord, out: Path) -> dict[str, dict[int, Figures]]:
    """What has been judged so far, whatever on: row → seed → figures."""
    found: dict[str, dict[int, Figures]] = {row.name: {} for row in record.rows}
    for job in jobs_of(record, out):
        stored = _stored(job.report)
        if stored is not None:
            found[job.row][job.seed] = stored
    return found


def _outputs(job: Job) -> tuple[Path, Path]:
    return job.report.with_suffix(".err"), job.report.with_suffix(".out")


def _ingredients(record: SweepRecord, job: Job, data: Data) -> dict[str, object]:
    """What figures are made of: the same ingredients give the same figures."""
    probe = {"task": record.probe.task, "options": sorted(json.dumps(each) for each in record.probe.options)}
    where = {flag: str(path if is_url(path) else Path(path).resolve()) for flag, path in data.flags.items()}
    return {"model_sha256": sha256_of(job.model), "source": job.source, "seed": job.seed, "data": where, "probe": probe}


def _stored(report: Path, ingredients: dict[str, object] | None = None) -> Figures | None:
    """Stored figures; None where there are none, or they were made of something else."""
    try:
        stored = json.loads((report / FIGURES).read_text(encoding="utf-8"))
        if ingredients is not None and stored["ingredients"] != ingredients:
            return None
        return {str(name): float(value) for name, value in stored["figures"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # judged again, which mends whatever was wrong with the file


def _outcome(job: Job, end: Ended) -> tuple[Figures | None, str]:
    """A probe's figures, or why there are none."""
    if end.status:
        return None, end.reason
    try:
        answer = json.loads(last_line(end.task.answer))
        means = answer["means"][job.source]
        return {name: float(value) for name, value in means.items() if value is not None}, ""
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return None, f"the probe's answer in {end.task.answer} cannot be read ({error!r})"

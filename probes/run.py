"""Runs tasks: units and sources in, records and the report out.

What is recorded already under the same conditions, data and weights is not measured again; what is measured is recorded unit by
unit (long units: source by source), so that a run that was stopped loses one at most. Several runs may write into one report.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version

import torch

from common.device import device_name, pick_device
from common.progress import ProgressDisplay
from probes.jobs import Opening, Part, Processes
from probes.measure import Measured, Place, measure
from probes.report import records
from probes.report.build import rebuild
from probes.report.records import CHANCE, Picture, Protocol, Records, RunLine, UnitLine
from probes.report.store import SHORT, differing, mean_of
from probes.report.tables import Section
from probes.sources.features import Source
from probes.sources.flowfeat import Checkpoint, open_checkpoint
from probes.sources.identity import identity_sha256
from probes.sources.lattice import LatticeMeter
from probes.sources.request import UNASKED, SourceRequest
from probes.sources.table import check_names, create_sources
from probes.task import Row, Scalar, Settings, Task, Unit

Todo = list[tuple[Unit, list[Source]]]


@dataclass(frozen=True)
class Request:
    """What a run needs to know besides its tasks. known: every task that the report is to show. about: see `Task.about`."""

    model: Path
    out: Path
    sources: tuple[str, ...]
    seed: int
    teacher: bool
    device: str
    known: tuple[type[Task], ...]
    about: Settings = field(default_factory=dict)
    source_request: SourceRequest = UNASKED
    jobs: int = 1


@dataclass(frozen=True)
class Job:
    """A task at work: its protocol, the weights of its sources, and where its lines go."""

    task: Task
    protocol: Protocol
    weights: dict[str, str]
    records: Records
    request: Request
    device: torch.device
    display: ProgressDisplay

    def note(self, line: RunLine | UnitLine) -> None:
        records.append(self.request.out, [line])
        self.records.add(line)

    def line(self, unit: Unit, source: str, rows: list[Row], seconds: float, pictures: Sequence[Picture]) -> UnitLine:
        protocol, weights = self.protocol, self.weights.get(source, "")
        shown = [picture for picture in pictures if picture.source in ("", source)]
        return UnitLine(
            now(), protocol.task, protocol.digest, protocol.conditions, source, weights, unit.name,
            protocol.data[unit.name], dict(unit.facts), rows, seconds, protocol.seed, versions(), shown,
        )  # fmt: skip

    def is_measured(self, unit: Unit, source: str) -> bool:
        key = self.protocol.conditions, self.weights.get(source, ""), source, unit.name, self.protocol.data[unit.name]
        return key in self.records.units


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    return {"flowfeat": version("flowfeat-shards"), "torch": torch.__version__, "python": python_version()}


def weights_of(sources: Sequence[Source], checkpoint: Checkpoint) -> dict[str, str]:
    """SHA-256 of the file that a source was computed with, and which decoder of it; of networks of others, of the network."""
    part = " (teacher)" if checkpoint.teacher else ""
    own = f"{checkpoint.sha256}{part}"
    return {source.name: identity_sha256(source) if source.foreign else own for source in sources}


def fitting(task: Task, sources: Sequence[Source]) -> list[Source]:
    """Those that have a row of their own in a task. ValueError where none has."""
    found = [source for source in sources if task.refines or source.refine is None]
    if not found:
        names = ", ".join(source.name for source in sources)
        raise ValueError(
            f"{task.name} has no logits to refine, and only {names} was asked for: add flowfeat to --sources"
        )
    return found


def run_tasks(tasks: Sequence[Task], request: Request) -> list[Section]:
    """Measure what is missing, write the report, and return the tasks with their results.

    Raises
    ------
    ValueError: bad data, model or settings. What was measured before is kept.
    """
    names = check_names(request.sources)
    device = pick_device(request.device)
    work = [(task, task.units()) for task in tasks]
    checkpoint = open_checkpoint(
        request.model, teacher=request.teacher, seed=request.seed, device=device, request=request.source_request
    )
    every = create_sources(names, checkpoint)
    model = {name: value for name, value in checkpoint.settings().items() if name != "seed"}
    opening = Opening(
        request.model, request.teacher, request.seed, request.device, request.sources, request.source_request,
        threads=max(1, torch.get_num_threads() // request.jobs),
    )  # fmt: skip
    sections = []
    with Processes(opening, request.jobs) as processes:
        for number, (task, units) in enumerate(work, start=1):
            place = f"{task.name} (probe {number} of {len(work)})" if len(work) > 1 else task.name
            with ProgressDisplay(place, task.step.many) as display:
                sources = fitting(task, every)
                data = {unit.name: unit.fingerprint() for unit in units}
                settings = {**task.settings(), **({"device": device_name(device)} if task.timed else {})}
                protocol = Protocol(task.name, settings, request.seed, data)
                weights = weights_of(sources, checkpoint)
                job = Job(task, protocol, weights, records.read(request.out), request, device, display)
                _run_task(job, units, sources, model, processes)
            made = rebuild(request.out, request.known)
            sections.append(next(section for section in made if section.task is type(task)))
    return sections


def _run_task(
    job: Job, units: Sequence[Unit], sources: Sequence[Source], model: Settings, processes: Processes
) -> None:
    """One task: its line in the records, then whatever is missing."""
    task, protocol = job.task, job.protocol
    _say_what_is_there(job)
    about = {**task.about(), **job.request.about, **({} if task.timed else {"device": job.device.type})}
    meter, earlier = LatticeMeter(), _about_before(job)
    run = RunLine(now(), task.name, protocol.digest, dict(protocol.settings), protocol.seed, dict(protocol.data), job.weights,
                  dict(model), {**about, **meter.lines(earlier)}, versions())  # fmt: skip
    job.note(run)  # before the first minutes are spent: a directory that can't be written to is found out now
    lattice = _measure(job, units, sources if task.timed else meter.watched(sources), processes)
    if (found := {**about, **meter.lines(earlier), **lattice}) != run.about:
        job.note(replace(run, at=now(), about=found))


def _about_before(job: Job) -> Settings:
    """What the last run of these weights under the same protocol said."""
    runs = reversed(job.records.runs)
    same = (run.about for run in runs if run.digest == job.protocol.digest and run.weights == job.weights)
    return next(same, {})


def _say_what_is_there(job: Job) -> None:
    if job.records.damaged:
        job.display.say(
            f"{job.records.damaged} lines of {job.request.out / records.FILE} are damaged or of another version: "
            "what they held is measured again"
        )
    before = job.records.last_run(job.task.name)
    if before is None:
        return
    changes = differing({**before.settings, "seed": before.seed}, {**job.protocol.settings, "seed": job.protocol.seed})
    if changes:
        job.display.say(f"starting afresh, other settings: {changes}; what was measured before keeps its own table")
    elif before.weights != job.weights:
        hashes = sorted({weights[:SHORT] for weights in before.weights.values()})
        job.display.say(f"the model of {', '.join(hashes)} stays in the table beside this one")


def _missing(job: Job, units: Sequence[Unit], sources: Sequence[Source]) -> Todo:
    """The units with the sources that they lack rows of."""
    lacking = [(unit, [source for source in sources if not job.is_measured(unit, source.name)]) for unit in units]
    return [(unit, several) for unit, several in lacking if several]


def _measure(job: Job, units: Sequence[Unit], sources: Sequence[Source], processes: Processes) -> Settings:
    """Every unit that lacks rows of a source, recording them at once. What other processes found out about the sources comes back."""
    task, display = job.task, job.display
    todo = _missing(job, units, sources)
    if len(todo) < len(units):
        done = f"{len(units) - len(todo)} of {len(units)} {task.unit.many}"
        display.say(f"{done} are already measured with these settings")
    display.begin(sum(unit.steps * len(lacking) for unit, lacking in todo))
    for unit in units:
        if not job.is_measured(unit, CHANCE):
            _measure_chance(job, unit)
    parts = sum(len(lacking) if task.long_units else 1 for _, lacking in todo)
    if task.in_processes and job.request.jobs > 1 and parts > 1:
        return _measure_in_processes(job, todo, sources, processes)
    for number, (unit, lacking) in enumerate(todo, start=1):
        for part in _parts(task, lacking):
            _measure_part(job, unit, part)
        display.say(f"{number}/{len(todo)} {_summary(job, unit, sources)}")
    return {}


def _measure_in_processes(job: Job, todo: Todo, sources: Sequence[Source], processes: Processes) -> Settings:
    """As `_measure`. The sources' lattices are those on the first unit, whichever process is done first."""
    work = [(unit, several) for unit, lacking in todo for several in _parts(job.task, lacking)]
    parts = [Part(unit, tuple(one.name for one in several), _place(job, several)) for unit, several in work]
    left = Counter(unit.name for unit, _ in work)
    lattice: dict[str, Scalar] = {}
    finished = 0
    for one in processes.measure(parts, job.display):
        unit, several = work[one.number]
        _record(job, unit, several, one.measured)
        if unit is todo[0][0]:
            lattice |= one.lattice
        left[unit.name] -= 1
        if not left[unit.name]:
            finished += 1
            job.display.say(f"{finished}/{len(todo)} {_summary(job, unit, sources)}")
    return lattice


def _parts(task: Task, sources: list[Source]) -> Iterator[list[Source]]:
    if not task.long_units:
        yield sources
        return
    yield from ([source] for source in sources)


def _measure_chance(job: Job, unit: Unit) -> None:
    started = time.perf_counter()
    rows = job.task.chance(unit, job.request.seed)
    if rows:
        _check(job.task, unit, [CHANCE], {CHANCE: rows})
        job.note(job.line(unit, CHANCE, rows, round(time.perf_counter() - started, 2), []))


def _place(job: Job, sources: Sequence[Source]) -> Place:
    made_of = f"{job.protocol.conditions[:SHORT]}-{job.weights[sources[0].name][:SHORT]}"
    return Place(job.request.out, job.task.name, made_of)


def _measure_part(job: Job, unit: Unit, sources: list[Source]) -> None:
    step, say = _advance(job.display, unit.name), job.display.say
    place = _place(job, sources)
    _record(job, unit, sources, measure(unit, sources, place, job.device, job.request.seed, step=step, say=say))


def _record(job: Job, unit: Unit, sources: Sequence[Source], measured: Measured) -> None:
    names = [source.name for source in sources]
    _check(job.task, unit, names, measured.rows)
    for name in names:
        seconds = round(measured.seconds / len(names), 2)
        job.note(job.line(unit, name, measured.rows[name], seconds, measured.pictures))


def _advance(display: ProgressDisplay, unit: str) -> Callable[[int], None]:
    return lambda steps: display.advance(steps, status=unit)


def _check(task: Task, unit: Unit, sources: Sequence[str], rows: dict[str, list[Row]]) -> None:
    """The task keeps its own promises; anything else is a defect of the task, not of the data."""
    assert set(rows) == set(sources), f"{task.name}: rows of {sorted(rows)}"
    known = {metric.name for metric in task.metrics}
    for row in (row for several in rows.values() for row in several):
        assert set(row.values) <= known, f"{task.name}, {unit.name}: {sorted(set(row.values) - known)} not declared"


def _summary(job: Job, unit: Unit, sources: Sequence[Source]) -> str:
    """`dog: frames 60, objects 1, J&F encoder 31.2, ...`."""
    headline = job.task.metric(job.task.headline)
    facts = [f"{name} {value}" for name, value in unit.facts.items()]
    means = []
    for source in sources:
        key = job.protocol.conditions, job.weights[source.name], source.name, unit.name, job.protocol.data[unit.name]
        means.append(f"{source.name} {headline.text(mean_of(job.records.units[key].rows, headline.name))}")
    return f"{unit.name}: {', '.join([*facts, f'{headline.title} {means[0]}', *means[1:]])}"

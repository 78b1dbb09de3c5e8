"""Runs tasks: units and sources in, results files and the report out.

What is stored already with the same settings and data is not measured again; what is measured is stored unit by unit, so
that a run that was stopped loses one unit at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from common.device import pick_device
from common.progress import ProgressDisplay
from probes.report.build import rebuild
from probes.report.pictures import PictureFolder
from probes.report.store import OtherFormat, Results, UnitRecord, differing, results_file
from probes.report.tables import Section
from probes.sources.features import Source
from probes.sources.flowfeat import Checkpoint, open_checkpoint
from probes.sources.lattice import LatticeMeter
from probes.sources.table import check_names, create_sources
from probes.task import Context, Row, Settings, Task, Unit


@dataclass(frozen=True)
class Request:
    """What a run needs to know besides its tasks. known: every task that the report is to show."""

    model: Path
    out: Path
    sources: tuple[str, ...]
    seed: int
    teacher: bool
    device: str
    known: tuple[type[Task], ...]


def run_tasks(tasks: Sequence[Task], request: Request) -> list[Section]:
    """Measure what is missing, write the report, and return the tasks with their results.

    Raises
    ------
    ValueError: bad data, model or settings. What was measured before is kept.
    """
    names = check_names(request.sources)
    device = pick_device(request.device)
    work = [(task, task.units()) for task in tasks]
    checkpoint = open_checkpoint(request.model, teacher=request.teacher, seed=request.seed, device=device)
    sources = create_sources(names, checkpoint)
    sections = []
    for task, units in work:
        with ProgressDisplay(task.name, task.step.many) as display:
            results = _opened_results(task, checkpoint, request.out, display)
            results.selection, results.sources = [unit.name for unit in units], names
            meter = LatticeMeter()
            about, stored = {**task.about(), "device": device.type, "torch": torch.__version__}, results.about
            results.about = {**about, **meter.lines(stored)}
            # Saved before the first minutes are spent: a directory that can't be written to is found out now.
            results.save(results_file(request.out, task.name))
            _measure(task, units, meter.watched(sources), results, request, device, display)
            results.about = {**about, **meter.lines(stored)}
            results.save(results_file(request.out, task.name))
        rebuild(request.out, request.known)
        sections.append(Section(type(task), results))
    return sections


def _opened_results(task: Task, checkpoint: Checkpoint, out: Path, display: ProgressDisplay) -> Results:
    """Stored results where they were made with the same settings, else fresh ones."""
    settings: Settings = {**checkpoint.settings(), **task.settings()}
    path = results_file(out, task.name)
    fresh = Results(task.name, dict(settings))
    if not path.is_file():
        return fresh
    try:
        stored = Results.load(path)
    except OtherFormat as error:
        display.say(f"starting afresh: {error}")
        return fresh
    changes = differing(stored.settings, settings)
    if changes:
        display.say(f"starting afresh, {path} was measured with other settings: {changes}")
        return fresh
    return stored


def _missing(units: Sequence[Unit], sources: Sequence[Source], results: Results) -> list[tuple[Unit, list[Source]]]:
    """The units with the sources that they lack rows of; a unit whose data changed has none."""
    todo = []
    for unit in units:
        record, fingerprint = results.units.get(unit.name), unit.fingerprint()
        if record is None or record.fingerprint != fingerprint:
            record = results.units[unit.name] = UnitRecord(fingerprint, dict(unit.facts))
        lacking = [source for source in sources if source.name not in record.rows]
        if lacking:
            todo.append((unit, lacking))
    return todo


def _measure(
    task: Task,
    units: Sequence[Unit],
    sources: Sequence[Source],
    results: Results,
    request: Request,
    device: torch.device,
    display: ProgressDisplay,
) -> None:
    """Every unit that lacks rows of a source, saving after each."""
    todo = _missing(units, sources, results)
    if len(todo) < len(units):
        done = f"{len(units) - len(todo)} of {len(units)} {task.unit.many}"
        display.say(f"{done} are already measured with these settings")
    display.begin(sum(unit.steps * len(lacking) for unit, lacking in todo))
    for number, (unit, lacking) in enumerate(todo, start=1):
        record = results.units[unit.name]
        pictures = PictureFolder(request.out, task.name, unit.name)
        context = Context(device, request.seed, pictures, _advance(display, unit.name))
        started = time.perf_counter()
        rows = unit.evaluate(lacking, context)
        _check(task, unit, lacking, rows)
        seconds = round((time.perf_counter() - started) / len(lacking), 2)
        record.rows.update(rows)
        record.seconds.update({source.name: seconds for source in lacking})
        record.add_pictures(pictures.saved)
        results.save(results_file(request.out, task.name))
        display.say(f"{number}/{len(todo)} {_summary(Section(type(task), results), unit.name)}")


def _advance(display: ProgressDisplay, unit: str) -> Callable[[int], None]:
    return lambda steps: display.advance(steps, status=unit)


def _check(task: Task, unit: Unit, sources: Sequence[Source], rows: dict[str, list[Row]]) -> None:
    """The task keeps its own promises; anything else is a defect of the task, not of the data."""
    assert set(rows) == {source.name for source in sources}, f"{task.name}: rows of {sorted(rows)}"
    known = {metric.name for metric in task.metrics}
    for row in (row for several in rows.values() for row in several):
        assert set(row.values) <= known, f"{task.name}, {unit.name}: {sorted(set(row.values) - known)} not declared"


def _summary(section: Section, unit: str) -> str:
    """`dog: frames 60, objects 1, J&F encoder 31.2, ...`."""
    record = section.results.units[unit]
    facts = [f"{name} {value}" for name, value in record.facts.items()]
    means = [f"{name} {section.unit_mean(unit, name)}" for name in section.results.sources if name in record.rows]
    title = section.task.metric(section.task.headline).title
    return f"{unit}: {', '.join([*facts, f'{title} {means[0]}', *means[1:]])}"

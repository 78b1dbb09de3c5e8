"""The report: `<task>.csv` per task, `results.csv`, `report.md` and `index.html` over all of them, from `records.jsonl` beside them.

`rebuild` can be run at any time, by several processes too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from probes.report import records, tables
from probes.report.markdown import markdown_text
from probes.report.page import page
from probes.report.records import Records
from probes.report.results_csv import results_csv
from probes.report.store import results_of
from probes.report.tables import Section
from probes.report.training import training_of
from probes.task import Task
from shards.files import write_atomic

RUN = "run"
"""Where a run's line keeps the directory of its training."""


def stored_sections(stored: Records, tasks: Sequence[type[Task]]) -> list[Section]:
    """The tasks that have records, each under its latest protocol, with the others behind it."""
    sections = []
    for task in tasks:
        under = [Section(task, results) for results in results_of(stored, task.name)]
        if under:
            sections.append(Section(task, under[0].results, under[1:]))
    return sections


def rebuild(out: Path, tasks: Sequence[type[Task]], run_dir: Path | None = None) -> list[Section]:
    """Write the CSV files, `report.md` and `index.html` from the records in `out`.

    run_dir: of the training to show; else the one that the records name last.

    Raises
    ------
    ValueError: no records in `out`, or no unit of any task measured with every source yet.
    """
    with records.one_at_a_time(out):
        stored = records.read(out)
        sections = stored_sections(stored, tasks)
        if not sections:
            raise ValueError(
                f"no results in {out} ({records.FILE}): run a probe first, such as `python -m probes vos --out {out}`"
            )
        if not any(section.results.complete() for section in sections):
            section = sections[0]
            raise ValueError(
                f"{out / records.FILE} holds no {section.task.unit.one} that is measured with all of "
                f"{', '.join(section.results.sources)}: run the probe again"
            )
        training = training_of(run_dir or _named_run(stored))
        for section in sections:
            if section.results.complete():
                write_atomic(out / f"{section.task.name}.csv", tables.csv_text(section))
        write_atomic(out / "results.csv", results_csv(sections))
        write_atomic(out / "report.md", markdown_text(sections, training))
        write_atomic(out / "index.html", page(sections, out, training))
    return sections


def _named_run(stored: Records) -> Path | None:
    named = (run.about.get(RUN) for run in reversed(stored.runs))
    found = next(filter(None, named), None)
    return None if found is None else Path(str(found))

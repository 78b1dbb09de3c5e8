"""The report: `<task>.csv` per task, `report.md` and `index.html` over all of them, from the results files beside them.

`rebuild` reads every `<out>/<task>.json`, which `run.py` keeps up to date; it can be run at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from probes.report import tables
from probes.report.markdown import markdown_text
from probes.report.page import page
from probes.report.store import Results, results_file
from probes.report.tables import Section
from probes.task import Task
from shards.files import write_atomic


def stored_sections(out: Path, tasks: Sequence[type[Task]]) -> list[Section]:
    """The tasks that have results in `out`. Raises ValueError for a damaged file."""
    files = ((task, results_file(out, task.name)) for task in tasks)
    return [Section(task, Results.load(path)) for task, path in files if path.is_file()]


def rebuild(out: Path, tasks: Sequence[type[Task]]) -> list[Section]:
    """Write the CSV files, `report.md` and `index.html` from the results in `out`.

    Raises
    ------
    ValueError: no results in `out`, damaged results, or no unit of any task measured with every source yet.
    """
    sections = stored_sections(out, tasks)
    if not sections:
        files = " or ".join(results_file(out, task.name).name for task in tasks)
        raise ValueError(
            f"no results in {out} ({files}): run a probe first, such as `python -m probes vos --out {out}`"
        )
    if not any(section.results.complete() for section in sections):
        section = sections[0]
        raise ValueError(
            f"{results_file(out, section.task.name)} holds no {section.task.unit.one} that is measured with all of "
            f"{', '.join(section.results.sources)}: run the probe again"
        )
    for section in sections:
        if section.results.complete():
            write_atomic(out / f"{section.task.name}.csv", tables.csv_text(section))
    write_atomic(out / "report.md", markdown_text(sections))
    write_atomic(out / "index.html", page(sections, out))
    return sections

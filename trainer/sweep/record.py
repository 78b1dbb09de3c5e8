"""OUT/sweep.json: what a sweep is and how far it got, for those who judge its runs. They need nothing else of this package.

Written when the sweep begins and whenever a run ends. Directories are relative to OUT, so that the whole may be moved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from shards.files import write_atomic
from trainer.sweep.plan import SweepPlan, run_directory
from trainer.sweep.sweep_file import ProbeSettings, Row, override
from trainer.sweep.toml_part import Value

RECORD = "sweep.json"
FORMAT = 2
RunStatus = Literal["waiting", "finished", "failed", "interrupted"]


@dataclass(frozen=True)
class RunRecord:
    """One row at one seed. error: the last line of a failed one."""

    seed: int
    directory: str
    status: RunStatus
    error: str = ""


@dataclass(frozen=True)
class RowRecord:
    """A row of the table. left_out: why it was not trained, empty where it is. trained_by: the program that trains it,
    empty for the sweep. A row of another source has no status of its own: its runs stand for the baseline's."""

    name: str
    title: str
    source: str
    trained: bool
    settings: tuple[str, ...]
    shards: str
    paper: float | None
    left_out: str
    trained_by: str
    runs: tuple[RunRecord, ...]


@dataclass(frozen=True)
class SweepRecord:
    """The content of sweep.json."""

    name: str
    file: str
    baseline: str
    probe: ProbeSettings
    rows: tuple[RowRecord, ...]

    @property
    def baseline_row(self) -> RowRecord:
        return next(row for row in self.rows if row.name == self.baseline)


def record_of(plan: SweepPlan, errors: Mapping[str, str], interrupted: frozenset[str] = frozenset()) -> SweepRecord:
    """errors: name of a failed run → its last line."""
    rows = tuple(_row(plan, row, errors, interrupted) for row in plan.file.rows)
    return SweepRecord(plan.file.name, str(plan.file.path), plan.file.baseline, plan.file.probe, rows)


def _row(plan: SweepPlan, row: Row, errors: Mapping[str, str], interrupted: frozenset[str]) -> RowRecord:
    runs: list[RunRecord] = []
    for run in plan.runs_of(row):
        status: RunStatus = "waiting"
        if run.finished:
            status = "finished"
        elif run.name in errors:
            status = "failed"
        elif run.name in interrupted:
            status = "interrupted"
        directory = str(run.directory.relative_to(plan.out))
        runs.append(RunRecord(run.seed, directory, status, errors.get(run.name, "") if status == "failed" else ""))
    if not row.trained:
        places = [run_directory(plan.out, row.name, seed).relative_to(plan.out) for seed in plan.file.seeds]
        runs = [RunRecord(s, str(place), "waiting") for s, place in zip(plan.file.seeds, places, strict=True)]
    settings = tuple(override(key, value) for key, value in row.settings)
    left_out = plan.left_out.get(row.name, "")
    return RowRecord(
        row.name,
        row.title,
        row.source,
        row.trained,
        settings,
        row.shards,
        row.paper,
        left_out,
        row.trained_by,
        tuple(runs),
    )


def write_record(out: Path, record: SweepRecord) -> None:
    write_atomic(out / RECORD, json.dumps({"format": FORMAT, **asdict(record)}, indent=1) + "\n")


def read_record(out: Path) -> SweepRecord:
    """Raises ValueError where `out` holds no sweep, or its record is damaged."""
    path = out / RECORD
    if not path.is_file():
        raise ValueError(
            f"{out} holds no sweep: {path} does not exist, run `python -m trainer sweep ... --out {out}` first"
        )
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            raise ValueError(
                f"{path} has format {stored['format']!r}, this program reads {FORMAT}: remove the file and run the sweep again, "
                "finished runs stay"
            )
        probe = stored["probe"]
        options = tuple((name, _frozen(value)) for name, value in probe["options"])
        settings = ProbeSettings(probe["task"], probe["metric"], options)
        rows = tuple(_row_record(each) for each in stored["rows"])
        return SweepRecord(stored["name"], stored["file"], stored["baseline"], settings, rows)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): run the sweep again, finished runs stay") from error


def _row_record(stored: dict[str, Any]) -> RowRecord:
    runs = tuple(RunRecord(**each) for each in stored["runs"])
    return RowRecord(**{**stored, "settings": tuple(stored["settings"]), "runs": runs})


def _frozen(value: Any) -> Value:
    """A list of JSON as the tuple that it was."""
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value

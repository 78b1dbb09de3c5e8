"""Every probe on the generator's own data: its masks, classes, depth, normals and exact correspondences, at sizes for a small machine.

`make probe-data` makes the folder (`python -m pipeline synth --davis-sequences N --stills N`, and a shard set of exact flow); a task
says with `Task.embedded` which part of it it takes and with what settings. No data set, no network: it shows that sources differ, and
nothing that compares with anybody's figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from probes.task import Task

ABOUT = "embedded"
"""Where a run's line says that it was such a run."""
HELP = "Folder of `pipeline synth` with sequences and stills: probes that no data is named for run on it, at small settings."
MAKE = "`make probe-data`, or `python -m pipeline synth --out {folder} --videos 0 --davis-sequences 6 --stills 72`"
EXTRACT = "`python -m pipeline extract --dataset davis --root {folder}/davis --out {folder}/shards --flow truth`"

Named = Callable[[type[Task]], dict[str, Any]]
"""The fields of a task that were named on the command line."""


def note(folder: Path) -> str:
    return (
        f"Probes that no data set was named for run on the generator's own data in {folder}, at small settings: "
        "compare the rows of a table with each other and with nothing else."
    )


def tasks(known: Sequence[type[Task]], folder: Path, named: Named) -> list[Task]:
    """Every task that has data: those that were named data, as they were; the others on the generator's.

    Raises
    ------
    ValueError: the folder lacks what a task takes from it.
    """
    found = []
    for task in known:
        given = named(task)
        data = [name for name, option in task.options().items() if option.data]
        if data and any(name in given for name in data):
            found.append(task(**given))
        elif task.embedded is not None:
            fields = {
                name: _place(folder, str(value)) if name in data else value for name, value in task.embedded.items()
            }
            found.append(task(**{**fields, **given}))
    return [task for task in found if task.has_data()]


def _place(folder: Path, relative: str) -> Path:
    place = folder / relative
    if not place.exists():
        way = (EXTRACT if relative == "shards" else MAKE).format(folder=folder)
        raise ValueError(f"{folder} has no {relative}/: make it with {way}")
    return place

"""One unit measured for some sources: with smaller batches where memory runs out. What comes back can go from process to process.

`run.py` calls it, or its processes do (`jobs.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from common.memory import is_out_of_memory
from probes.data.batching import BatchLimit
from probes.report.pictures import PictureFolder
from probes.report.records import Picture
from probes.sources.features import Source
from probes.task import Context, Row, Unit


@dataclass(frozen=True)
class Place:
    """Where pictures go: the report's directory, the task's name, and what they are made of (`report/pictures.py`)."""

    out: Path
    task: str
    made_of: str


@dataclass(frozen=True)
class Measured:
    """rows: by source. seconds: of all sources together."""

    rows: dict[str, list[Row]]
    pictures: list[Picture]
    seconds: float


def measure(
    unit: Unit,
    sources: Sequence[Source],
    place: Place,
    device: torch.device,
    seed: int,
    *,
    step: Callable[[int], None],
    say: Callable[[str], None],
) -> Measured:
    """step: told what is done, and a negative number when that was in vain. say: takes a line for the user.

    Raises
    ------
    ValueError: data that cannot be read.
    RuntimeError, MemoryError: memory ran out with a single picture at a time.
    """
    started, limit = time.perf_counter(), BatchLimit()
    while True:
        pictures, done = PictureFolder(place.out, place.task, unit.name, place.made_of), [0]

        def count(steps: int, done: list[int] = done) -> None:
            done[0] += steps
            step(steps)

        try:
            rows = unit.evaluate(sources, Context(device, seed, pictures, count, limit))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not limit.halve():
                raise
            step(-done[0])
            say(f"{unit.name}: memory ran out; once more with at most {limit.most} at a time")
        else:
            return Measured(rows, pictures.saved, time.perf_counter() - started)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # outside the handler: the error holds the tensors until it is gone

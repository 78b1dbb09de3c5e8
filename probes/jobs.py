"""Units measured by several processes: each opens the model once, takes a unit, sends the rows back, takes the next.

Units and the names of sources go out over a pipe per process, `Measured` comes back, in any order; the caller records them. A
unit is measured as in one process, so that rows are the same, given the same number of threads (a sum's order hangs on it).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from common.command import PlainError
from common.device import pick_device
from common.memory import is_out_of_memory
from common.progress import ProgressDisplay
from probes.measure import Measured, Place, measure
from probes.sources.flowfeat import open_checkpoint
from probes.sources.lattice import LatticeMeter
from probes.sources.request import SourceRequest
from probes.sources.table import create_sources
from probes.task import Scalar, Unit


@dataclass(frozen=True)
class Opening:
    """What a process needs to make the sources."""

    model: Path
    teacher: bool
    seed: int
    device: str
    sources: tuple[str, ...]
    source_request: SourceRequest
    threads: int


@dataclass(frozen=True)
class Part:
    """A unit with the sources that it is measured for."""

    unit: Unit
    sources: tuple[str, ...]
    place: Place


@dataclass(frozen=True)
class Done:
    """lattice: what is to be said of the sources' lattices on the pictures of this unit."""

    number: int
    measured: Measured
    lattice: dict[str, Scalar]


@dataclass(frozen=True)
class Failed:
    """out_of_memory: the allocator's message; else `error` is what a user can do something about."""

    error: str
    out_of_memory: bool = False


Message = int | str | Done | Failed
"""Steps done, a line to show, the end of a part."""


def measure_in_processes(
    parts: Sequence[Part], opening: Opening, jobs: int, display: ProgressDisplay
) -> Iterator[Done]:
    """Raises ValueError for data that cannot be read and where memory runs out, PlainError when a process dies."""
    context = get_context("spawn")  # CUDA and OpenMP don't survive a fork
    waiting = list(enumerate(parts))[::-1]
    with ExitStack() as stack:
        busy: dict[Connection, str] = {}
        for _ in range(min(jobs, len(parts))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, opening), daemon=True)
            process.start()
            theirs.close()
            stack.callback(process.join)
            stack.callback(process.terminate)
            stack.enter_context(ours)
            _give(ours, waiting, busy)
        while busy:
            for ours in [one for one in wait(list(busy)) if isinstance(one, Connection)]:
                try:
                    message: Message = ours.recv()
                except (EOFError, ConnectionResetError) as error:
                    raise PlainError(f"a process of --jobs died at {busy[ours]}: is memory short? use fewer") from error
                if isinstance(message, Done):
                    yield message
                    _give(ours, waiting, busy)
                elif isinstance(message, Failed):
                    raise ValueError(f"{message.error}: use fewer --jobs" if message.out_of_memory else message.error)
                elif isinstance(message, str):
                    display.say(message)
                else:
                    display.advance(message, status=busy[ours])


def _give(ours: Connection, waiting: list[tuple[int, Part]], busy: dict[Connection, str]) -> None:
    """The next part, or none: then the process ends."""
    busy.pop(ours, None)
    if waiting:
        number, part = waiting.pop()
        busy[ours] = part.unit.name
        ours.send((number, part))
    else:
        ours.send(None)


def _work(ours: Connection, opening: Opening) -> None:
    """A process: parts in, messages out, until there is none."""
    torch.set_num_threads(opening.threads)
    device = pick_device(opening.device)
    checkpoint = open_checkpoint(
        opening.model, teacher=opening.teacher, seed=opening.seed, device=device, request=opening.source_request
    )
    every = create_sources(opening.sources, checkpoint)
    while (given := ours.recv()) is not None:
        number, part = given
        meter = LatticeMeter()
        sources = meter.watched([source for source in every if source.name in part.sources])
        try:
            measured = measure(part.unit, sources, part.place, device, opening.seed, step=ours.send, say=ours.send)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            ours.send(Failed(str(error).splitlines()[0] if str(error) else "out of memory", out_of_memory=True))
            return
        except (ValueError, OSError) as error:
            ours.send(Failed(str(error)))
            return
        ours.send(Done(number, measured, meter.lines({})))

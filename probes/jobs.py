"""Units measured by several processes: each opens the model once, takes a unit, sends the rows back, takes the next.

Units and the names of sources go out over a pipe per process, `Measured` comes back, in any order; the caller records them. A
unit is measured as in one process, so that rows are the same, given the same number of threads (a sum's order hangs on it).
Long units go out source by source, so that one data set occupies several processes too.
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


class Processes:
    """Up to `jobs` processes, started when there is work for them and kept for the next probe. To be used in a `with`."""

    def __init__(self, opening: Opening, jobs: int) -> None:
        self.opening, self.jobs = opening, jobs
        self._context = get_context("spawn")  # CUDA and OpenMP don't survive a fork
        self._pipes: list[Connection] = []
        self._ends = ExitStack()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *raised: object) -> None:
        self._ends.close()

    def measure(self, parts: Sequence[Part], display: ProgressDisplay) -> Iterator[Done]:
        """The parts in any order. Raises ValueError for data that cannot be read and where memory runs out, PlainError when a
        process dies."""
        while len(self._pipes) < min(self.jobs, len(parts)):
            self._start()
        waiting = list(enumerate(parts))[::-1]
        busy: dict[Connection, str] = {}
        for ours in self._pipes:
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

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self.opening), daemon=True)
        process.start()
        theirs.close()
        self._ends.callback(process.join)
        self._ends.callback(process.terminate)
        self._ends.enter_context(ours)
        self._pipes.append(ours)


def _give(ours: Connection, waiting: list[tuple[int, Part]], busy: dict[Connection, str]) -> None:
    """The next part, or none: then the process waits for the next probe."""
    busy.pop(ours, None)
    if waiting:
        number, part = waiting.pop()
        busy[ours] = part.unit.name
        ours.send((number, part))


def _work(ours: Connection, opening: Opening) -> None:
    """A process: parts in, messages out, until it is ended."""
    torch.set_num_threads(opening.threads)
    device = pick_device(opening.device)
    checkpoint = open_checkpoint(
        opening.model, teacher=opening.teacher, seed=opening.seed, device=device, request=opening.source_request
    )
    every = create_sources(opening.sources, checkpoint)
    while True:
        number, part = ours.recv()
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

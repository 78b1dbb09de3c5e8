"""What a step costs in a process of its own: seconds, CPU seconds, the peak of its memory above what the process had before."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """grown_bytes: peak of memory above what the process had before; peak_bytes: its whole peak. found: what the step returned, if it is a
    number."""

    wall_s: float
    cpu_s: float
    grown_bytes: int
    peak_bytes: int
    found: float

    def note(self) -> str:
        return f"{self.wall_s:.2f} s wall; peak +{self.grown_bytes / 2**20:.0f} MiB, {self.peak_bytes / 2**20:.0f} MiB in all"


def cost_of(step: Callable[[], object]) -> Cost:
    """Run a step in a forked child."""
    mine, theirs = get_context("fork").Pipe()

    def child(answer: Connection) -> None:
        before, wall, cpu = _peak_bytes(), time.perf_counter(), time.process_time()
        found = step()
        spent = time.perf_counter() - wall, time.process_time() - cpu
        answer.send(
            Cost(*spent, _peak_bytes() - before, _peak_bytes(), found if isinstance(found, int | float) else 0.0)
        )

    process = get_context("fork").Process(target=child, args=(theirs,))
    process.start()
    theirs.close()
    found = mine.recv()
    process.join()
    assert isinstance(found, Cost)
    return found


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def shared_bytes(pids: list[int]) -> int:
    """Proportional set size of some processes together: memory that several of them share counts once. Linux alone says it."""
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total

"""How many CPU threads a process may reasonably use, and how they wait for each other.

Torch starts one thread per processor it can see. That is too many where a container's quota allows less than the machine has, and
where two hardware threads share a core's arithmetic. What makes it collapse is how OpenMP waits: at the end of every parallel
loop the threads that are done spin, and next to any other load they spin in the very time that the last one needs. Told to wait
passively they sleep instead. Measured once, in LOG.md; `bench/cpu_threads.py` measures it on a machine at hand.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
PROCESSORS = Path("/sys/devices/system/cpu")


def usable_cores() -> int:
    """Physical cores that this process may run on, at most as many as its container's quota pays for; at least 1."""
    return max(1, min(_physical(_allowed()), quota(CGROUP)))


def usable_processors() -> int:
    """As `usable_cores`, hardware threads: how many processes can be at work. A batch system may lend a few of a machine's many."""
    return max(1, min(len(_allowed()), quota(CGROUP)))


def _allowed() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def quota(cgroup: Path) -> int:
    """Processors' worth of time that a control group pays for, rounded up; more than any machine has where it says nothing."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = [word for name in names for word in (cgroup / name).read_text().split()]
            granted, period = (int(word) for word in words[:2])
        except (OSError, ValueError):  # no such control group, or "max": no limit
            continue
        if granted > 0 and period > 0:
            return math.ceil(granted / period)
    return sys.maxsize


def wait_without_spinning() -> None:
    """Have OpenMP's threads sleep while they wait. To be called before torch is imported; a user's own setting goes first."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _physical(processors: list[int]) -> int:
    """Cores among the processors: those that share one say so by the same list of siblings."""
    cores = set()
    for number in processors:
        try:
            cores.add((PROCESSORS / f"cpu{number}/topology/thread_siblings_list").read_text().strip())
        except OSError:
            cores.add(str(number))
    return len(cores)

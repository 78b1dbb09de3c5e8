"""Whether an error means that memory ran out, and how much there is. Imports no torch, so that commands start fast."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUP = Path("/sys/fs/cgroup")
PROC = Path("/proc")
_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """True for CUDA's torch.OutOfMemoryError, for the CPU allocator's plain RuntimeError and for Python's MemoryError."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _MESSAGES)


def available_bytes() -> int:
    """What may still be taken: as much as the machine has free, at most what the limits of a container or a batch job leave."""
    return min(_of_the_machine(PROC), left_by_limits(CGROUP, PROC))


def _of_the_machine(proc: Path) -> int:
    meminfo = proc / "meminfo"
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def left_by_limits(cgroup: Path, proc: Path) -> int:
    """The least that any control group around this process has left, 0 at least; more than any machine has where none has a limit.

    Whoever takes more than that is killed, however much the machine has free. A limit counts all processes inside it, and the cache of
    files that they read; the cache is given back when memory is short.
    """
    unified = ("memory.max", "memory.current", "inactive_file", "active_file")
    older = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file")
    left = [_left(group, *unified) for group in _groups(cgroup, proc, "")]
    left += [_left(group, *older) for group in _groups(cgroup / "memory", proc, "memory")]
    return min(left)


def _groups(mounted: Path, proc: Path, controller: str) -> Iterator[Path]:
    """The control group of this process and those around it, as far as they can be seen: in a container its own is the outermost.

    controller: of version 1; "" for the only hierarchy of version 2, as in cgroups(7).
    """
    own = PurePosixPath("/")
    try:
        for line in (proc / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                own = PurePosixPath("/" + path.lstrip("/"))
    except (OSError, ValueError):  # no such file, or none as it should be: what is mounted counts
        pass
    if ".." in own.parts:  # moved out of what this process can see
        own = PurePosixPath("/")
    for group in (own, *own.parents):
        yield mounted / group.relative_to("/")


def _left(group: Path, limit: str, usage: str, *caches: str) -> int:
    try:
        most, used = (int((group / name).read_text()) for name in (limit, usage))
    except (OSError, ValueError):  # no such group, or "max": no limit
        return sys.maxsize
    try:
        lines = [line.split() for line in (group / "memory.stat").read_text().splitlines()]
        cached = sum(int(bytes_) for name, bytes_ in lines if name in caches)
    except (OSError, ValueError):
        cached = 0
    return max(0, most - max(0, used - cached))

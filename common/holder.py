"""A process as others on the same machine or elsewhere can know it: in a lock's file, and to see whether it still lives."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Holder:
    """A process. place: this boot of its machine and the process numbers that are valid there; empty where the system does not say.

    started: when it began, in the system's own count, because process numbers are used again. what: what it does, for people.
    """

    what: str
    host: str
    pid: int
    place: str
    started: str

    @classmethod
    def here(cls, what: str) -> Holder:
        return cls(what, platform.node(), os.getpid(), place_of_this_process(), started(os.getpid()))

    def __str__(self) -> str:
        return f"{self.what}, process {self.pid} on {self.host}"

    def lives(self) -> bool | None:
        """None where that cannot be seen from here."""
        if not self.place or self.place != place_of_this_process():
            return None
        return bool(self.started) and started(self.pid) == self.started


def place_of_this_process() -> str:
    """This boot of this machine and the process numbers that are valid here; empty where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def started(pid: int) -> str:
    """Empty for a process that has ended, whether or not its parent has asked after it."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if after_name[0] in "ZX" else after_name[19]

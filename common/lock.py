"""One process at a time: on a file that several may want to make, where the second waits, and in a directory, where it is refused."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.command import PlainError

log = logging.getLogger(__name__)


@contextmanager
def only_process(target: Path, *, growing: Path, wait_s: float) -> Iterator[None]:
    """Hold `<target>.lock`; the system lets go of it when a process dies. The file is gone afterwards.

    Whoever waits does so as long as `growing` grows. Raises TimeoutError once it has stood still for wait_s.
    """
    lock = target.with_name(f"{target.name}.lock")
    size, since = -1, time.monotonic()
    while (handle := _try_lock(lock)) is None:
        if size < 0:
            log.warning("another process is fetching %s: waiting for it", target)
        now = growing.stat().st_size if growing.exists() else 0
        if now != size:
            size, since = now, time.monotonic()
        if time.monotonic() - since > wait_s:
            raise TimeoutError(
                f"another process is fetching {target}, but nothing has come for {wait_s:g} s: end it and try again"
            )
        time.sleep(0.1)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)  # while it is held: who has opened it meanwhile sees that the name is gone
        os.close(handle)


def _try_lock(lock: Path) -> int | None:
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), os.stat(lock)):
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass  # held, or its holder has just removed it
    os.close(handle)
    return None


@contextmanager
def directory_lock(directory: Path, what: str) -> Iterator[int]:
    """Hold `directory`/.lock and give its descriptor. Raises PlainError where somebody, or a child of theirs, has it."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PlainError(
                f"{what} is already at work in {directory} (or its last child is still saving): wait for it, or stop it"
            ) from error
        yield file.fileno()

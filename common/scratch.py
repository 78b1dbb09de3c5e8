"""Local folders for what is only on its way: one per process and purpose, gone with it, or with the next process after a kill."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.command import PlainError
from common.lock import directory_lock


def scratch_home(scratch: Path, purpose: str) -> Path:
    """Where this process's folder for a purpose is; `scratch_folder` makes it."""
    return scratch / f"{purpose}-{os.getpid()}"


def scratch_home_of(scratch: Path, purpose: str, url: str) -> Path:
    """As `scratch_home`, for what an address has: those of other addresses are other purposes."""
    return scratch_home(scratch, f"{purpose}-{hashlib.sha256(url.encode()).hexdigest()[:16]}")


@contextmanager
def scratch_folder(home: Path) -> Iterator[None]:
    """Make a `scratch_home`, and remove it at the end with all that it holds; first remove those of the same purpose whose processes
    are gone. PlainError where this process has it already."""
    purpose = home.name.rpartition("-")[0]
    for other in home.parent.glob(f"{purpose}-*"):
        with suppress(PlainError, OSError), directory_lock(other, "another process"):  # else it is at work
            shutil.rmtree(other, ignore_errors=True)
    with directory_lock(home, "this process"):
        try:
            yield
        finally:
            shutil.rmtree(home, ignore_errors=True)

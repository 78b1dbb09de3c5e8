"""How files that must survive are written, and how files are hashed. Every stage writes through here and no other way.

Bytes go to a temporary name beside the target, are synced, and take the target's name in one rename: a reader, or a
power cut, sees the old file or all of the new one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

LEFTOVER_AGE_S = 3600.0
"""Temporary files of killed writers are removed when the same target is written again this long afterwards."""


def fsync_path(path: Path) -> None:
    """Flush a file, or make the renames inside a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: Path, *, keep_suffix: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` for whoever needs a name to write to; on success it becomes `path`.

    keep_suffix: for libraries that choose the format by the end of the name, as video writers do.
    Folders are made. On an error the temporary file is removed and whatever was at `path` stays as it was; an OSError
    without a file name gets the target's. FileExistsError where something else than a file is at `path`.
    """
    path = Path(path)
    if (
        path.exists() and not path.is_file()
    ):  # the rename would put a file in the place of a device: root's /dev/null is gone then
        raise FileExistsError(errno.EEXIST, "Not a regular file; give another name", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{_glob_quoted(path.name)}.*.tmp*"):
        if _age_s(leftover) > LEFTOVER_AGE_S:
            leftover.unlink(missing_ok=True)
    temporary = path.with_name(
        f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp{path.suffix if keep_suffix else ''}"
    )
    try:
        yield temporary
        publish(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None and error.errno is not None:
            error.filename = str(path)  # a failing write does not say where
        raise


def _age_s(path: Path) -> float:
    """Since it was written last; 0 where another writer has just renamed it."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def publish(temporary: Path, path: Path) -> None:
    """fsync the file, rename it, fsync the folder that now names it."""
    fsync_path(temporary)
    os.replace(temporary, path)
    fsync_path(path.parent)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """`atomic_path` with the temporary file already open for writing bytes."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        yield stream


def write_atomic(path: Path, content: bytes | str) -> None:
    """The whole of a small file at once; text is written as UTF-8."""
    with atomic_file(path) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def full_disk(error: OSError) -> bool:
    """Whether an OSError says that the device or quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _glob_quoted(name: str) -> str:
    """A file name in which no character is special to glob."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def plain_size(path: Path) -> int | None:
    """Of a regular file that is no link; one question to the file system. None for all else."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None

"""The files of a set as somebody needs them who looks at every byte: in place, or fetched one after the other from remote storage."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from shards.bucket import Bucket
from shards.storage import Folder, LocalFolder, Patience, RemoteFolder, StorageError, is_url

READING = Patience()


class SetFiles(Protocol):
    """Names are those inside the set. folder: where shards are read from, the fetched one alone where they are not in place."""

    @property
    def folder(self) -> Folder: ...

    def names(self) -> list[str]:
        """Of all files, as far as the place can be listed."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a regular file; None where there is none."""
        ...

    def path(self, name: str) -> Path:
        """The file, until the next one is asked for."""
        ...


@contextmanager
def set_files(root: Path | str) -> Iterator[SetFiles]:
    """Of the set at a folder or an address. Methods raise OSError."""
    if not is_url(root):
        yield _LocalFiles(Path(root))
        return
    with tempfile.TemporaryDirectory(prefix="flowfeat-verify-") as scratch:
        yield _RemoteFiles(str(root), Path(scratch))


class _LocalFiles:
    def __init__(self, root: Path) -> None:
        self._root = root
        self.folder: Folder = LocalFolder(root)

    def names(self) -> list[str]:
        return [path.relative_to(self._root).as_posix() for path in self._root.rglob("*") if path.is_file()]

    def size(self, name: str) -> int | None:
        path = self._root / name
        return path.stat().st_size if path.is_file() else None

    def path(self, name: str) -> Path:
        return self._root / name


class _RemoteFiles:
    def __init__(self, url: str, scratch: Path) -> None:
        self._scratch = scratch
        self._bucket, self._remote = Bucket(url, READING), RemoteFolder(url, READING)
        self._fetched = ""
        self.folder: Folder = LocalFolder(scratch)
        try:
            self._sizes: dict[str, int] | None = {name: file.size for name, file in self._bucket.files().items()}
        except StorageError:
            self._sizes = None  # web servers give files and no listing

    def names(self) -> list[str]:
        return list(self._sizes or ())

    def size(self, name: str) -> int | None:
        return self._sizes.get(name) if self._sizes else self._bucket.size(name)

    def path(self, name: str) -> Path:
        target = self._scratch / name
        if name != self._fetched:
            shutil.rmtree(self._scratch / self._fetched.split("/")[0] if self._fetched else target, ignore_errors=True)
            self._fetched = ""
            self.folder = LocalFolder(self._scratch)  # it holds files open
            target.parent.mkdir(parents=True, exist_ok=True)
            self._remote.fetch(name, self.size(name) or 0, target)
            self._fetched = name
        return target

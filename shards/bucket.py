"""A place in remote storage that is written to: objects appear whole or not at all, are listed, read and deleted.

Local files and bytes come in, under names inside the place; where they go is any file system of fsspec (`storage.open_filesystem`).
Object stores show an object once its upload has ended. Other file systems get a temporary name first, which is then renamed.
Requests have a time limit that grows with their size, and are repeated with growing pauses.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from shards.storage import Patience, StorageError, inside, open_filesystem, persist

REQUESTS_AT_ONCE = 8
SLOWEST_BYTES_PER_S = 1 << 20
"""An upload that is slower than this, on average, has timed out."""
WRITING = Patience(attempts=5, timeout_s=60.0, pause_s=1.0)

_WHOLE_UPLOADS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci"})
_PARTS_AT_ONCE = {"s3": {"max_concurrency": 2}, "s3a": {"max_concurrency": 2}}
"""Of one upload in parts of 50 MB: what is held in memory. Whatever is below 100 MB is one request."""
_TEMPORARY = re.compile(r"(^|/)\.[^/]+\.[0-9a-f]{32}\.tmp$")
_EXISTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_NOT_KNOWN = frozenset({"NotImplemented", "501"})
_TIMES = ("LastModified", "mtime", "last_modified", "updated", "created")
_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "crc32c")


class RemoteFile(NamedTuple):
    """What a listing says: bytes, time of the last change (0 where it is not said), and what differs when the content does."""

    size: int
    mtime_ns: int
    tag: str


class Bucket:
    """The objects under an address. Safe to use from several threads.

    After a request that failed for good the storage counts as down, and the next ones get one attempt each until one succeeds.
    Methods raise StorageError. ValueError where the address needs a package that is not installed.
    """

    def __init__(self, url: str, patience: Patience = WRITING) -> None:
        self.url, self.patience, self.down = url.rstrip("/"), patience, False
        kind = url.split("://")[0]
        self._filesystem, self._root = open_filesystem(self.url, **_PARTS_AT_ONCE.get(kind, {}))
        self._root = self._root.rstrip("/")
        self._whole = kind in _WHOLE_UPLOADS
        self._folders: set[str] = set()
        self._lock = threading.Lock()

    def _limit(self, size: int = 0) -> dict[str, float]:
        if not self._filesystem.async_impl:
            return {}
        return {"timeout": self.patience.timeout_s + size / SLOWEST_BYTES_PER_S}

    def _path(self, name: str) -> str:
        return inside(self._root, name)

    def files(self) -> dict[str, RemoteFile]:
        """Every object, by its name inside the place; what lies nowhere is an empty listing."""

        def ask() -> dict[str, dict[str, Any]]:
            self._filesystem.invalidate_cache()
            try:
                found: dict[str, dict[str, Any]] = self._filesystem.find(
                    self._root, detail=True, **self._limit(1 << 28)
                )
            except FileNotFoundError:
                return {}
            finally:
                self._filesystem.invalidate_cache()  # a listing of 150,000 objects need not stay in memory
            return found

        start = f"{self._root.lstrip('/')}/"
        listing: dict[str, RemoteFile] = {}
        for path, info in persist(self, f"{self.url}: the listing", ask).items():
            name = path.lstrip("/")
            if info.get("type") == "file" and name.startswith(start) and info.get("size") is not None:
                listing[name[len(start) :]] = _remote_file(info)
        return listing

    def size(self, name: str) -> int | None:
        """Bytes of one object; None where there is none."""
        what, path = inside(self.url, name), self._path(name)
        try:
            info = persist(self, what, lambda: self._filesystem.info(path, **self._limit()))
        except StorageError as error:
            if error.missing:
                return None
            raise
        return None if info.get("size") is None else int(info["size"])

    def read(self, name: str, size: int | None = None) -> bytes:
        """A whole object. size: its bytes where they are known, which spares the storage the question."""

        def ask() -> bytes:
            path, limit = self._path(name), self._limit(size or 1 << 20)
            if not size:
                whole: bytes = self._filesystem.cat_file(path, **limit)
                return whole
            data: bytes = self._filesystem.cat_file(path, start=0, end=size, **limit)
            if len(data) != size:
                raise ConnectionError(f"{len(data)} bytes came, {size} were asked for")
            return data

        return persist(self, inside(self.url, name), ask)

    def put(self, name: str, source: Path) -> None:
        """Make a local file the object `name`."""
        size = source.stat().st_size
        self._write(name, lambda path: self._filesystem.put_file(str(source), path, **self._limit(size)))

    def write(self, name: str, data: bytes) -> None:
        """Make bytes the object `name`."""
        self._write(name, lambda path: self._filesystem.pipe_file(path, data, **self._limit(len(data))))

    def _write(self, name: str, send: Any) -> None:
        path, what = self._path(name), inside(self.url, name)
        if self._whole:
            persist(self, what, lambda: send(path))
            return
        folder, _, last = path.rpartition("/")
        temporary = f"{folder}/.{last}.{uuid.uuid4().hex}.tmp"

        def ask() -> None:
            self._make_folder(folder)
            send(temporary)
            self._filesystem.mv(temporary, path)

        persist(self, what, ask)

    def _make_folder(self, folder: str) -> None:
        with self._lock:
            if folder not in self._folders:
                self._filesystem.makedirs(folder, exist_ok=True)
                self._folders.add(folder)

    def create(self, name: str, data: bytes) -> bool:
        """Make bytes the object `name` if there is none; False where there is one. Stores without conditional writes are asked first."""

        def ask() -> None:
            path = self._path(name)
            if not self._whole:
                self._make_folder(path.rpartition("/")[0])
                with self._filesystem.open(path, "xb") as stream:
                    stream.write(data)
                return
            try:
                self._filesystem.pipe_file(path, data, mode="create", **self._limit(len(data)))
            except Exception as error:
                code = _code(error)
                if code in _EXISTS:
                    raise FileExistsError(path) from error
                if code not in _NOT_KNOWN and not isinstance(error, TypeError):
                    raise
                if self.size(name) is not None:
                    raise FileExistsError(path) from error
                self._filesystem.pipe_file(path, data, **self._limit(len(data)))

        try:
            persist(self, inside(self.url, name), ask)
        except FileExistsError:
            return False
        return True

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects, one after the other; those that are gone already are as wanted."""
        for name in names:
            try:
                persist(self, inside(self.url, name), lambda: self._filesystem.rm_file(self._path(name)))  # noqa: B023
            except StorageError as error:
                if not error.missing:
                    raise

    def put_all(self, files: Iterable[tuple[str, Path]]) -> None:
        """`put` several at once. Raises for the first that failed, after those under way have ended."""
        _at_once(REQUESTS_AT_ONCE, "upload", [partial(self.put, name, source) for name, source in files])

    def get_all(self, sizes: Mapping[str, int], root: Path) -> None:
        """Objects into files of the same names under `root`, several at once. sizes: of each object, as it was listed."""

        def get(name: str) -> None:
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read(name, sizes[name]))

        _at_once(2 * REQUESTS_AT_ONCE, "fetch", [partial(get, name) for name in sizes])


def _at_once(threads: int, name: str, calls: Iterable[Callable[[], None]]) -> None:
    """Raises for the first in order that failed, after those under way have ended."""
    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        asked = [pool.submit(call) for call in calls]
        try:
            for one in asked:
                one.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _code(error: Exception) -> str:
    """What S3 calls an error; empty elsewhere."""
    answer = getattr(error.__cause__, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))


def is_temporary(name: str) -> bool:
    """Whether an object is what a killed `Bucket` left of an upload to a file system that is no object store."""
    return _TEMPORARY.search(name) is not None


def _remote_file(info: dict[str, Any]) -> RemoteFile:
    mtime_ns = next((_nanoseconds(info[key]) for key in _TIMES if info.get(key) is not None), 0)
    tag = next((str(info[key]).strip('"') for key in _TAGS if info.get(key)), str(mtime_ns))
    return RemoteFile(int(info["size"]), mtime_ns, tag)


def _nanoseconds(when: object) -> int:
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            return 0
    if isinstance(when, datetime):
        when = when.timestamp()
    return int(when * 1e6) * 1000 if isinstance(when, int | float) else 0

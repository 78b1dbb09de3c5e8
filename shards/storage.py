"""Where a shard set lies: a local folder, or any address that fsspec opens (s3://, http://, memory://, ...; the extra `remote`).

Names inside a set come in, bytes go out: whole files, or one range of one file. A request to remote storage has a time limit and is
repeated with growing pauses; what comes is never fewer bytes than asked for. Keys and end points are fsspec's matter: its
configuration files, and the environment variables of the storage (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

STEP_BYTES = 32 << 20
"""Of a file that is fetched whole: what one request asks for."""
MOST_HANDLES = 256
_TRY_AGAIN = frozenset({408, 425, 429})  # answers that speak of the moment although they begin with a 4


class StorageError(OSError):
    """Remote storage does not give or take the bytes, in one line that names them.

    missing: there are none. refused: it said no in a way that another attempt cannot change, such as an expired credential.
    """

    def __init__(self, message: str, *, missing: bool = False, refused: bool = False) -> None:
        super().__init__(message)
        self.strerror, self.missing, self.refused = message, missing, refused


@dataclass(frozen=True)
class Patience:
    """attempts at one request; timeout_s for each (file systems without a time limit of their own keep theirs); pause_s before
    the second, then doubling."""

    attempts: int = 4
    timeout_s: float = 30.0
    pause_s: float = 0.5


class Folder(Protocol):
    """The files of one shard set. Errors are OSErrors whose `strerror` says what is wrong in one line."""

    @property
    def place(self) -> str:
        """The folder or address, for messages."""
        ...

    def read(self, name: str) -> bytes:
        """A whole file."""
        ...

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on; fewer only where a local file ends before."""
        ...


def is_url(place: Path | str) -> bool:
    """Whether a set's place is an address for fsspec rather than a folder."""
    return "://" in str(place)


def inside(place: Path | str, name: str) -> str:
    """Path or address of a file of the set at `place`."""
    return f"{str(place).rstrip('/')}/{name}"


def open_folder(place: Path | str, patience: Patience | None = None) -> Folder:
    """The set's files at a folder or an address. ValueError where the address needs a package that is not installed."""
    return RemoteFolder(str(place), patience or Patience()) if is_url(place) else LocalFolder(Path(place))


def open_filesystem(url: str, **options: Any) -> tuple[Any, str]:
    """fsspec's file system for an address, and the address as that file system names it. options: the file system's own.

    ValueError naming the extra where fsspec, or what it needs for this kind of address, is not installed, or the kind is unknown.
    """
    try:
        import fsspec  # an extra, needed for addresses only
    except ImportError as error:
        raise _no_package(url, "fsspec is not installed") from error
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **options)
        return filesystem, str(path)
    except ImportError as error:
        raise _no_package(url, str(error)) from error
    except ValueError as error:
        raise ValueError(f"{url} cannot be opened: {error}") from error


def _no_package(url: str, reason: str) -> ValueError:
    return ValueError(f"{url} needs the extra `remote` ({reason}): pip install 'flowfeat-shards[remote]'")


class LocalFolder:
    """Files under a local folder, held open between ranges: what replaces or removes a file does not reach those who have it open."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._handles: dict[str, int] = {}
        self._pid = os.getpid()

    @property
    def place(self) -> str:
        return str(self.root)

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        return os.pread(self._handle(name), size, offset)

    def _handle(self, name: str) -> int:
        if (
            self._pid != os.getpid()
        ):  # after a fork: file positions are not shared by pread, but descriptors are not ours to close
            self._handles, self._pid = {}, os.getpid()
        if name not in self._handles:
            if len(self._handles) >= MOST_HANDLES:
                os.close(self._handles.pop(next(iter(self._handles))))
            self._handles[name] = os.open(self.root / name, os.O_RDONLY)
        return self._handles[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": {}}

    def __del__(self) -> None:
        if getattr(self, "_pid", None) == os.getpid():
            for handle in self._handles.values():
                os.close(handle)


@dataclass
class RemoteFolder:
    """Files under an address of fsspec.

    After a request that failed for good the storage counts as down, and the next ones get one attempt each until one succeeds:
    a run whose bucket is gone ends soon instead of waiting out every pause.
    """

    place: str
    patience: Patience = field(default_factory=Patience)
    down: bool = False
    _opened: tuple[int, Any, str] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        open_filesystem(self.place)  # what is not installed is said at once

    def read(self, name: str) -> bytes:
        return self._request(name, None, None)

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        return self._request(name, offset, offset + size)

    def fetch(self, name: str, size: int, target: Path) -> None:
        """A file of so many bytes, in ranges of STEP_BYTES that are tried again each on its own, into a local one."""
        with open(target, "wb") as stream:
            for start in range(0, size, STEP_BYTES):
                stream.write(self.read_range(name, start, min(STEP_BYTES, size - start)))

    def _request(self, name: str, start: int | None, stop: int | None) -> bytes:
        what = inside(self.place, name) + ("" if start is None else f", bytes {start}-{stop}")

        def ask() -> bytes:
            data = self._ask(name, start, stop)
            if start is None or stop is None or len(data) == stop - start:
                return data
            reason = f"{len(data)} bytes came, {stop - start} were asked for"
            if len(data) > stop - start:
                raise StorageError(f"{what}: {reason}; the server does not give ranges of files")
            raise _Short(reason)

        return persist(self, what, ask)

    def _ask(self, name: str, start: int | None, stop: int | None) -> bytes:
        if self._opened is None or self._opened[0] != os.getpid():  # its event loop does not outlive a fork
            self._opened = (os.getpid(), *open_filesystem(self.place))
        _, filesystem, root = self._opened
        limit = {"timeout": self.patience.timeout_s} if filesystem.async_impl else {}
        data: bytes = filesystem.cat_file(inside(root, name), start=start, end=stop, **limit)
        return data

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


class Asking(Protocol):
    """Who makes requests. down: the last one failed for good."""

    patience: Patience
    down: bool


class _Short(Exception):
    """Fewer bytes than were asked for."""


_Answer = TypeVar("_Answer")


def persist(who: Asking, what: str, ask: Callable[[], _Answer]) -> _Answer:
    """What `ask` gives, tried as often as the patience allows, once while the storage is down.

    Raises FileExistsError as it comes, StorageError ("what: why") for everything else.
    """
    was_down = who.down
    attempts = 1 if was_down else who.patience.attempts
    cause: Exception | None = None
    for attempt in range(attempts):
        if attempt:
            time.sleep(who.patience.pause_s * 2 ** (attempt - 1))
        try:
            answer = ask()
        except (StorageError, FileExistsError):
            raise
        except Exception as error:  # every file system has errors of its own; they leave here as one kind, chained
            missing = isinstance(error, FileNotFoundError)
            if missing or _refused(error):
                text = "there is no such file" if missing else f"refused ({_text(error)})"
                raise StorageError(f"{what}: {text}", missing=missing, refused=not missing) from error
            cause = error
            continue
        who.down = False
        return answer
    who.down = True
    assert cause is not None, "at least one attempt is made"
    tried = "one attempt, for the storage is down" if was_down else f"after {attempts} attempts"
    raise StorageError(f"{what}: {_text(cause)} ({tried})", refused=_lacks_credential(cause)) from cause


def _lacks_credential(error: Exception) -> bool:
    """Whether none was found, by the name of the error: each kind of storage has its own. Worth another attempt, for a credential may come
    from a server that did not answer; after that it is the user's turn."""
    return any("Credential" in kind.__name__ for kind in type(error).__mro__)


def _refused(error: Exception) -> bool:
    """Whether the storage said no in a way that another attempt cannot change."""
    status = getattr(error, "status", None)
    return isinstance(error, PermissionError) or (
        isinstance(status, int) and 400 <= status < 500 and status not in _TRY_AGAIN
    )


def _text(error: Exception) -> str:
    """One line on an error of whatever file system; timeouts have no text of their own."""
    if isinstance(error, TimeoutError):
        return "no answer within the time limit"
    if isinstance(error, _Short):
        return str(error)
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__

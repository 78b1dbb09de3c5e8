"""Videos in remote storage: a listing that looks like a folder, and files that are fetched when it is their turn.

    <scratch>/flowfeat-videos-<digest of the address>-<process>/
      listed/     every object under the address as an empty file of its size and time, beginning with its tag (ETag, MD5, ...); what is
                  read beside the videos, as it is
      fetched/    files and frame folders while they are decoded; those of another process on the same scratch in fetched-<node>-<...>/

Layouts list `listed/` as they list any folder, and what a set notes of its videos (size, time, both ends) is that of the objects: an
object that is replaced has another tag. An object is fetched in ranges of STEP_BYTES, each tried as often as the patience says.
"""

from __future__ import annotations

import glob
import os
import platform
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from zlib import crc32

from common.command import PlainError
from common.lock import directory_lock
from common.scratch import scratch_folder, scratch_home_of
from pipeline.video.datasets import Video
from pipeline.video.rejects import Reject
from pipeline.video.video_ids import VIDEO_EXTENSIONS
from shards.bucket import WRITING, Bucket, RemoteFile
from shards.storage import Patience, RemoteFolder, StorageError, inside

_OTHERS = "fetched-"


class RemoteVideos:
    """The videos under an address of fsspec. Listed inside `opened`; `fetch` may be called by several threads, and
    by other processes that see the same scratch, to which this may be handed.

    beside: how the names of files end that are read where videos are listed, so that these are fetched with the listing.

    Raises ValueError for an address that cannot be opened.
    """

    def __init__(self, url: str, scratch: Path, patience: Patience = WRITING, beside: tuple[str, ...] = ()) -> None:
        self.url, self._patience, self._beside = url.rstrip("/"), patience, beside
        self._bucket = Bucket(self.url, patience)
        self.home = scratch_home_of(scratch, "flowfeat-videos", self.url)
        self.root, self._fetched = self.home / "listed", self.home / "fetched"
        self._lock = threading.Lock()
        self._count, self._good = 0, ""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_bucket")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In another process, which fetches beside this one into the same scratch, into a folder of its own."""
        self.__dict__.update(state)
        self._lock, self._bucket = threading.Lock(), Bucket(self.url, self._patience)
        self._fetched = self.home / f"{_OTHERS}{platform.node()}-{uuid.uuid4().hex[:12]}"

    @contextmanager
    def fetching(self) -> Iterator[None]:
        """In another process: say that it is at work; afterwards remove what it has fetched."""
        with directory_lock(self._fetched, "this process"):
            try:
                yield
            finally:
                shutil.rmtree(self._fetched, ignore_errors=True)

    def remove_left(self) -> None:
        """Remove what was fetched by other processes on this machine that are gone. Of another machine nobody can tell for certain."""
        for folder in self.home.glob(f"{_OTHERS}{glob.escape(platform.node())}-*"):
            with suppress(PlainError, OSError):  # it is at work, or has just ended
                if any(path.name != ".lock" for path in folder.iterdir()):  # else it may be about to begin
                    with directory_lock(folder, "its process"):
                        shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """List what is there; afterwards remove everything local. StorageError where it cannot be listed."""
        with scratch_folder(self.home):
            for folder in (self.root, self._fetched):
                folder.mkdir(parents=True)
            self._list()
            yield

    def _list(self) -> None:
        files = self._bucket.files()
        if not files:
            raise ValueError(f"there is nothing under {self.url}: name the address of the videos (--root)")
        folders: set[Path] = set()
        whole: dict[str, RemoteFile] = {}
        for name, file in files.items():
            path = PurePosixPath(name)
            if any(part.startswith(".") and part not in (".", "..") for part in name.split("/")):
                continue  # as in a folder, hidden ones do not count
            try:
                if path.as_posix() != name or ".." in path.parts or path.is_absolute():
                    raise OSError(0, "no file can have this name")
                place = self.root / name
                if place.parent not in folders:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    folders.add(place.parent)
                _stand_in(place, file)
                if name.endswith(self._beside):
                    whole[name] = file
            except (OSError, ValueError) as error:
                if path.suffix.lower() in VIDEO_EXTENSIONS:
                    why = getattr(error, "strerror", None) or str(error)
                    raise ValueError(
                        f"the object {inside(self.url, name)!r} cannot be listed ({why}); rename it"
                    ) from error

        self._bucket.get_all({name: file.size for name, file in whole.items()}, self.root)
        for name, file in whole.items():
            os.utime(self.root / name, ns=(_time_ns(file),) * 2)

    def size(self, video: Video) -> int:
        """Bytes that `fetch` will take; 0 for what is not there."""
        return sum(path.stat().st_size for path in _files(video))

    def fetch(self, video: Video) -> Path:
        """A local copy of the video, to be given to `remove`; the video's own path where there is no such object.

        Raises Reject where the storage gives other objects and not this one, StorageError where it gives none.
        """
        files = list(_files(video))
        if not files:
            return video.path
        with self._lock:
            self._count += 1
            target = self._fetched / f"{self._count:08d}{video.path.suffix}"
        try:
            for file in files:
                place = target / file.relative_to(video.path) if video.kind == "frames" else target
                place.parent.mkdir(parents=True, exist_ok=True)
                self._get(file, place)
        except StorageError as error:
            self.remove(target)
            raise self._blame(video, error) from error
        except BaseException:
            self.remove(target)
            raise
        return target

    def _get(self, file: Path, target: Path) -> None:
        name, size = file.relative_to(self.root).as_posix(), file.stat().st_size
        RemoteFolder(self.url, self._patience).fetch(name, size, target)
        if size:
            self._good = name

    def _blame(self, video: Video, error: StorageError) -> Reject | StorageError:
        """Whether it is this video alone: then the storage still gives what it has given before, or anything else that it has."""
        here = video.path.relative_to(self.root).as_posix()
        said = str(error.strerror).replace(inside(self.url, here), str(video.path))
        if error.missing:
            return Reject("missing", f"{said} any more")
        other = self._good or self._another(here)
        try:
            RemoteFolder(self.url, Patience(2, self._patience.timeout_s, self._patience.pause_s)).read_range(
                other, 0, 1
            )
        except StorageError:
            return error
        return Reject("not_fetched", said)

    def _another(self, name: str) -> str:
        for folder, _, names in os.walk(self.root):
            for one in names:
                path = Path(folder) / one
                other = path.relative_to(self.root).as_posix()
                if not other.startswith(name) and path.stat().st_size:
                    return other
        return name

    def remove(self, fetched: Path) -> None:
        """Delete a local copy."""
        if fetched.is_relative_to(self._fetched):
            if fetched.is_dir():
                shutil.rmtree(fetched, ignore_errors=True)
            fetched.unlink(missing_ok=True)


def _files(video: Video) -> Iterator[Path]:
    if video.kind == "file":
        if video.path.is_file():
            yield video.path
        return
    for folder, _, names in os.walk(video.path):
        yield from (Path(folder) / name for name in sorted(names))


def _time_ns(file: RemoteFile) -> int:
    """Listings know time to the second at best; what is below that is made of the tag, so that whoever looks at the time alone sees
    another one."""
    return file.mtime_ns // 10**9 * 10**9 + crc32(file.tag.encode()) % 10**9


def _stand_in(path: Path, file: RemoteFile) -> None:
    """A sparse file that has the object's size and time, and begins with its tag."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, f"in remote storage: {file.tag}\n".encode()[: file.size])
        os.truncate(descriptor, file.size)
        os.utime(descriptor, ns=(_time_ns(file),) * 2)
    finally:
        os.close(descriptor)

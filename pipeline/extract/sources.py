"""Whether videos are still what they were when the first passes of their chunk were made.

Videos come in; `.sources/CCCCCC.json` inside the set keeps size, time stamp and a digest of both ends of each, written when a chunk first
lands. It begins with a dot: what a set is does not depend on time stamps, and a set without the file is checked no further. A copy of the
same videos has other time stamps, so where only these differ the digest decides.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from pipeline.video.datasets import Video
from shards.files import write_atomic

ENDS_BYTES = 1 << 16


@dataclass(frozen=True)
class Fingerprint:
    """Of a file, or of a folder's files together. ends: digest of the first and last 64 KiB, or of a folder's names and sizes."""

    size: int
    mtime_ns: int
    ends: str


def fingerprint(video: Video) -> Fingerprint | None:
    """None for what cannot be read, which is rejected for that elsewhere."""
    try:
        return _of_folder(video.path) if video.path.is_dir() else _of_file(video.path)
    except OSError:
        return None


def _of_file(path: Path) -> Fingerprint | None:
    if not path.is_file():
        return None
    status = path.stat()
    with open(path, "rb") as stream:
        ends = stream.read(ENDS_BYTES)
        stream.seek(max(0, status.st_size - ENDS_BYTES))
        ends += stream.read(ENDS_BYTES)
    return Fingerprint(status.st_size, status.st_mtime_ns, hashlib.sha256(ends).hexdigest())


def _of_folder(path: Path) -> Fingerprint:
    with os.scandir(path) as entries:
        files = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries)
    names = json.dumps([(name, size) for name, size, _ in files])
    digest = hashlib.sha256(names.encode("utf-8", "backslashreplace")).hexdigest()
    return Fingerprint(sum(size for _, size, _ in files), max((time for _, _, time in files), default=0), digest)


def _same_time(video: Video, known: Fingerprint) -> bool:
    """Files only: one question to the file system, no content."""
    status = video.path.stat()
    return video.kind == "file" and (status.st_size, status.st_mtime_ns) == (known.size, known.mtime_ns)


def note_sources(root: Path, chunk: int, videos: Iterable[Video]) -> None:
    """Keep what the videos of a chunk are, unless it has been kept before."""
    path = _path(root, chunk)
    if not path.exists():
        found = {video.id: fingerprint(video) for video in videos}
        body = {name: astuple(known) for name, known in found.items() if known is not None}
        write_atomic(path, json.dumps(body, sort_keys=True) + "\n")


def changed_sources(root: Path, chunk: int, videos: Sequence[Video]) -> list[str]:
    """One "name: what differs" per video of the chunk that is another than when the chunk first landed."""
    path = _path(root, chunk)
    if not path.is_file():
        return []
    try:
        noted = {name: Fingerprint(*entry) for name, entry in json.loads(path.read_bytes()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to go on without comparing the videos") from error
    changed = []
    for video in videos:
        known = noted.get(video.id)
        if known is None or not video.path.exists() or _same_time(video, known):
            continue
        found = fingerprint(video)
        if found is not None and (found.size, found.ends) != (known.size, known.ends):
            what = (
                f"{known.size} bytes then, {found.size} now" if found.size != known.size else "same size, other content"
            )
            changed.append(f"{video.id!r} ({what})")
    return changed


def _path(root: Path, chunk: int) -> Path:
    return root / ".sources" / f"{chunk:06d}.json"

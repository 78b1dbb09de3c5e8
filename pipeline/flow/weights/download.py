"""Fetching one weights file over HTTP so that it is either complete and right, or not there.

Bytes go to `<file>.part`; an interrupted or stalled transfer is resumed where it broke, also by
a later call; the finished file is checked (length, hash) and renamed into place. What servers
do wrong is expected: closing early, stalling, ignoring or misanswering ranges, sending a page
of HTML, changing the file between two attempts.
"""

from __future__ import annotations

import fcntl
import http.client
import logging
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from pipeline.flow.weights.catalogue import KnownWeights
from shards.files import sha256_of

log = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 18
Progress = Callable[[int, int | None], None]  # bytes here, bytes in all if the server says so


class _TryAgain(Exception):
    """The transfer broke in a way that another attempt may mend."""


@dataclass(frozen=True)
class Patience:
    """attempts: transfers tried in all. stall_s: longest silence of the server. pause_s: before a new attempt, doubling."""

    attempts: int = 6
    stall_s: float = 30.0
    pause_s: float = 1.0


def fetch(
    url: str,
    target: Path,
    *,
    sha256_prefix: str | None = None,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> str:
    """Bring `url` to `target` and return the sha256 of the file.

    Raises ValueError (one line, naming url and target) when the server refuses, keeps breaking off, or sends
    something else than was promised; OSError when the file cannot be written. A partial file is kept for the
    next call, except when its content turned out wrong.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"cannot fetch {url}: only http and https addresses are supported")
    patience = patience or Patience()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with _alone(target.parent):
        _attempt_until_complete(url, part, patience, progress)
        digest = sha256_of(part)
        if sha256_prefix is not None and not digest.startswith(sha256_prefix):
            _discard(part)
            raise ValueError(
                f"{url} sent a file whose sha256 starts with {digest[:8]}, not {sha256_prefix}; nothing was kept"
            )
        os.replace(part, target)
        _tag_file(part).unlink(missing_ok=True)
    return digest


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Lock the directory; two processes writing into one partial file would mix their bytes."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
        os.fsync(handle)
    except BlockingIOError as held:
        raise ValueError(f"another process is fetching files into {directory}; wait for it to finish") from held
    finally:
        os.close(handle)


def _attempt_until_complete(url: str, part: Path, patience: Patience, progress: Progress | None) -> None:
    reason = ""
    for attempt in range(patience.attempts):
        if attempt:
            log.warning("fetching %s: %s; attempt %d of %d", url, reason, attempt + 1, patience.attempts)
            time.sleep(patience.pause_s * 2 ** (attempt - 1))
        try:
            _transfer(url, part, patience.stall_s, progress)
            return
        except _TryAgain as broken:
            reason = str(broken)
        except HTTPError as refused:
            if refused.code < 500 and refused.code != 429:
                raise ValueError(
                    f"{url} answered {refused.code} {refused.reason}; is the address still right?"
                ) from refused
            reason = f"the server answered {refused.code}"
        except TimeoutError:
            reason = f"nothing came for {patience.stall_s:g} s"
        except (URLError, ConnectionError, http.client.HTTPException) as broken:
            reason = f"{getattr(broken, 'reason', broken)}"
    here = part.stat().st_size if part.exists() else 0
    raise ValueError(
        f"gave up fetching {url} after {patience.attempts} attempts ({reason}); {here} bytes are kept and will be resumed"
    )


def _transfer(url: str, part: Path, stall_s: float, progress: Progress | None) -> None:
    """One attempt: resume what is here if the server agrees that it is the same file, else start over."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "flowfeat", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        tag = _tag_file(part)
        if tag.exists():
            headers["If-Range"] = tag.read_text()
    try:
        response = urlopen(Request(url, headers=headers), timeout=stall_s)
    except HTTPError as refused:
        if refused.code != 416:
            raise
        _discard(part)  # what is here is longer than the file: it was another one
        raise _TryAgain("the partial file did not belong to it") from refused
    with response:
        if response.headers.get_content_type() == "text/html":
            raise ValueError(f"{url} answered with a web page instead of a file; open it in a browser")
        resumed = response.status == 206
        if resumed and not str(response.headers.get("Content-Range", "")).startswith(f"bytes {start}-"):
            _discard(part)
            raise _TryAgain(f"asked to go on at byte {start}, the server sent {response.headers.get('Content-Range')}")
        start = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        _remember_tag(part, response.headers.get("ETag"))
        _copy(response, part, start, total, progress)


def _copy(
    response: http.client.HTTPResponse, part: Path, start: int, total: int | None, progress: Progress | None
) -> None:
    here = start
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        while block := response.read1(_BLOCK_BYTES):
            file.write(block)
            here += len(block)
            if progress is not None:
                progress(here, total)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and here != total:
        raise _TryAgain(f"the server closed after {here} of {total} bytes")


def _tag_file(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _remember_tag(part: Path, tag: str | None) -> None:
    """A strong ETag lets the next attempt ask for "the rest, if it is still the same file"."""
    if tag is not None and not tag.startswith("W/"):
        _tag_file(part).write_text(tag)
    else:
        _tag_file(part).unlink(missing_ok=True)


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_file(part).unlink(missing_ok=True)


def get(entry: KnownWeights, *, patience: Patience | None = None, progress: Progress | None = None) -> Path:
    """Bring a known file into the cache unless it is there, and return its path. Raises ValueError if it cannot be had."""
    if entry.path.is_file():
        return entry.path
    if entry.url is None:
        raise ValueError(f"{entry.name} cannot be downloaded as a file: {entry.make_from}")
    if entry.member is None:
        fetch(entry.url, entry.path, sha256_prefix=entry.sha256_prefix, patience=patience, progress=progress)
        return entry.path
    archive = entry.path.with_name(entry.url.rsplit("/", 1)[1])
    if not archive.is_file():
        fetch(entry.url, archive, patience=patience, progress=progress)
    _extract(archive, entry.member, entry.path)
    return entry.path


def _extract(archive: Path, member: str, target: Path) -> None:
    """One file out of a zip archive, by way of a temporary name. zipfile checks the CRC."""
    part = target.with_name(target.name + ".part")
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as source, part.open("wb") as file:
            while block := source.read(_BLOCK_BYTES):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
    except (zipfile.BadZipFile, KeyError) as broken:
        part.unlink(missing_ok=True)
        raise ValueError(
            f"{archive} is no zip archive with {member} inside ({broken}); delete it to fetch it again"
        ) from broken
    os.replace(part, target)

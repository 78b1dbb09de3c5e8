"""Published encoder weights: where they lie and how they get here.

A variant's name becomes a file in the cache (`fetch_encoder`: resumed, length-checked, renamed when whole, its sha256
recorded beside it and compared ever after). What is in the file is read by `trainer.encoder_file`.
"""

from __future__ import annotations

import errno
import fcntl
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shards.files import atomic_path, publish, sha256_of
from trainer.families import FAMILIES, family_of_variant

log = logging.getLogger(__name__)
BLOCK_BYTES = 1 << 20
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Published:
    """url of a published encoder file; sha256 where it is known beforehand, else it is recorded at the first download."""

    url: str
    sha256: str | None = None


PUBLISHED: dict[str, Published] = {
    variant: Published(url) for family in FAMILIES.values() for variant, url in family.urls.items()
}


def cache_dir() -> Path:
    """$FLOWFEAT_CACHE, or ~/.cache/flowfeat."""
    named = os.environ.get("FLOWFEAT_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "flowfeat"


def fetch_encoder(
    variant: str, *, timeout_s: float = 30.0, attempts: int = 4, progress: Progress | None = None
) -> Path:
    """The cached file of a published encoder, downloaded if need be. progress is called with (bytes so far, bytes in all).

    Raises ValueError for a variant without published weights or a file whose sha256 is not the recorded one, and OSError
    saying what to fetch by hand, and where to, when the network does not give it.
    """
    if variant not in PUBLISHED:
        raise ValueError(
            f"{variant} has no published weights; known: {', '.join(PUBLISHED)}. Use init='random' or the path of a file"
        )
    source = PUBLISHED[variant]
    path = cache_dir() / source.url.rsplit("/", 1)[-1]
    with _sole_user(path):
        if not path.exists():
            family = family_of_variant(variant)
            if family is not None and family.non_commercial:
                log.warning("the weights of %s are licensed %s: no commercial use", variant, family.licence)
            try:
                download(source.url, path, timeout_s=timeout_s, attempts=attempts, progress=progress)
            except OSError as error:
                raise OSError(
                    f"the weights of {variant} could not be downloaded: {error}. Either fetch {source.url} by hand and put it at "
                    f"{path}, or give its place (init=PATH, encoder.weights=PATH in a config), or try without: init='random'"
                ) from error
        _check_digest(path, source.sha256)
    return path


@contextmanager
def _sole_user(path: Path) -> Iterator[None]:
    """Processes that start together (one per GPU) wait for the one that downloads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _check_digest(path: Path, expected: str | None) -> None:
    """Compare with the table's sha256, else the recorded one; a file seen for the first time is recorded."""
    record = path.with_name(f"{path.name}.sha256")
    actual = sha256_of(path)
    recorded = record.read_text().split()[0] if record.exists() else actual
    known = expected or recorded
    if known != actual:
        raise ValueError(
            f"{path} has sha256 {actual}, not {known} as recorded: delete it (and {record.name}) to download it again"
        )
    if not record.exists():
        with atomic_path(record) as temporary:
            temporary.write_text(f"{actual}  {path.name}\n")


# ---- download --------------------------------------------------------------------------------------------------------


def download(
    url: str,
    path: Path,
    *,
    timeout_s: float = 30.0,
    attempts: int = 4,
    wait_s: float = 1.0,
    progress: Progress | None = None,
) -> None:
    """url -> path, through `<path>.part`, which later attempts and later runs resume.

    timeout_s bounds each wait for data. A transfer that ends early or stalls is resumed where it stopped; after `attempts`
    in a row without a new byte it is given up: OSError. A refusal by the server (4xx) or the disk is not repeated.
    """
    part = path.with_name(f"{path.name}.part")
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _transfer(url, part, timeout_s, progress)
            publish(part, path)
            return
        except (OSError, http.client.HTTPException) as error:
            if (
                isinstance(error, urllib.error.HTTPError)
                and 400 <= error.code < 500
                and error.code not in (408, 416, 429)
            ):
                raise OSError(f"{url}: the server says {error.code} {error.reason}") from error
            if getattr(error, "errno", None) in DISK_ERRORS:
                raise
            moved = part.exists() and part.stat().st_size > before
            failures = 1 if moved else failures + 1
            if failures >= attempts:
                raise OSError(f"{url}: {_reason(error)}") from error
            time.sleep(wait_s * failures)


def _transfer(url: str, part: Path, timeout_s: float, progress: Progress | None) -> None:
    """One request: append what is missing to `part`. Returns only if the file then has the length the server states."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == 416 and _stated_total(error.headers.get("Content-Range")) == have:
            return  # the whole file was here, a killed run had not renamed it yet
        if error.code == 416:  # what lies here is no beginning of the file: start over
            part.unlink(missing_ok=True)
        raise
    with response:
        start = have if response.status == 206 else 0  # 200: this server does not resume, and sends all of it
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None else None
        if _stated_total(response.headers.get("Content-Range")) not in (None, total):
            part.unlink(missing_ok=True)
            raise OSError(f"the server resumed at another place than byte {have}")
        with part.open("ab" if start else "wb") as file:
            while block := response.read1(BLOCK_BYTES):
                file.write(block)
                if progress:
                    progress(file.tell(), total or 0)
            size = file.tell()
    if total is None:
        raise OSError("the server does not state a length, so a broken transfer could not be told from a whole one")
    if size != total:
        raise OSError(f"the transfer ended after {size} of {total} bytes")


def _stated_total(content_range: str | None) -> int | None:
    """The length of the whole file in "bytes 10-99/100"."""
    stated = (content_range or "").rpartition("/")[2]
    return int(stated) if stated.isdigit() else None


def _reason(error: BaseException) -> str:
    cause = getattr(error, "reason", None) or error
    return str(cause) or type(cause).__name__

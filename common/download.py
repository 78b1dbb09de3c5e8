"""Files over HTTP: URL -> `<file>.part` -> checked -> `<file>`, which is whole and the right one, or not there.

A transfer that breaks or stalls goes on where it stopped, also in a later run. The hash is pinned by the caller, or
recorded in `<file>.sha256` at the first sight of the file and compared ever after. A file that is here needs no network.

Own code because files of up to 1.2 GB from any host must be resumable, and pooch and torch.hub.download_url_to_file start
again after a break. huggingface_hub does resume, but only from its own hub.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from common.lock import only_process
from shards.files import publish, sha256_of, write_atomic

log = logging.getLogger(__name__)
_BLOCK_BYTES = 1 << 20
Progress = Callable[[int, int | None], None]  # bytes that are here, bytes in all if the server says so


class DownloadError(OSError):
    """The network does not give the file. Errors of the disk stay plain OSErrors."""


class _BrokenError(Exception):
    """The transfer broke in a way that another attempt may mend."""


@dataclass(frozen=True)
class Patience:
    """attempts: failures in a row without a new byte. stall_s: longest silence of the server. pause_s: before the second
    attempt, then doubling. wait_s: longest standstill of another process that fetches the same file."""

    attempts: int = 5
    stall_s: float = 30.0
    pause_s: float = 1.0
    wait_s: float = 600.0


PATIENCE = Patience()


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    patience: Patience = PATIENCE,
    progress: Progress | None = None,
) -> str:
    """Bring `url` to `target`, unless it is there, and return the file's sha256.

    sha256: the published hash, or as many of its first digits as are published. Processes that want one target wait for
    the one that fetches it. Raises, in one line, DownloadError when the network does not give the file, ValueError when it
    gives another one, OSError when it cannot be written. A partial file is kept for the next call unless it is wrong.
    """
    if target.is_file():
        return _checked(url, target, sha256)
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"cannot fetch {url} to {target}: only http and https addresses are supported")
    part = _beside(target, ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with only_process(target, growing=part, wait_s=patience.wait_s):
        if target.is_file():  # the process that we waited for has brought it
            return _checked(url, target, sha256)
        known = sha256 or _recorded(target)
        if not (known and part.is_file() and sha256_of(part).startswith(known)):  # else killed just before the rename
            _Transfer(url, part, f"fetch {url} by hand and put it at {target}", bool(known), patience, progress).run()
        if known and not (digest := sha256_of(part)).startswith(known):
            _discard(part)
            told = f"{url} sent a file whose sha256 starts with {digest[:8]}, not {known}; nothing was kept: try again"
            raise ValueError(
                f"{told}, {'' if sha256 else f'or delete {target.name}.sha256, '}or put the right file at {target}"
            )
        publish(part, target)
        _discard(part)  # its ETag is still there
        return _checked(url, target, sha256)


def forget(target: Path) -> None:
    """Remove a fetched file and the record of its hash."""
    target.unlink(missing_ok=True)
    _beside(target, ".sha256").unlink(missing_ok=True)


def _checked(url: str, target: Path, pinned: str | None) -> str:
    """The sha256 of the file that is here, compared with the pinned, else the recorded one; at first sight it is recorded."""
    digest, known = sha256_of(target), pinned or _recorded(target)
    if known and not digest.startswith(known):
        source, more = ("published", "") if pinned else ("recorded", f" and {target.name}.sha256")
        raise ValueError(f"{target} has sha256 {digest}, not {known} as {source}: delete it{more} to get {url} again")
    if known is None and os.access(target.parent, os.W_OK):  # else a cache that somebody else has filled
        write_atomic(_beside(target, ".sha256"), f"{digest}  {target.name}\n")  # as `sha256sum -c` reads it
    return digest


def _recorded(target: Path) -> str | None:
    record = _beside(target, ".sha256")
    return next(iter(record.read_text().split()), None) if record.is_file() else None


@dataclass(frozen=True)
class _Transfer:
    url: str
    part: Path
    by_hand: str
    hash_known: bool
    patience: Patience
    progress: Progress | None

    def run(self) -> None:
        """Attempts until `part` is whole."""
        failures, furthest = 0, _size(self.part)
        while True:
            try:
                return self._attempt()
            except _BrokenError as broken:
                reason = str(broken)
            here = _size(self.part)
            # Not "more than before": a server that makes us start over again and again must come to an end.
            failures, furthest = (1, here) if here > furthest else (failures + 1, furthest)
            if failures >= self.patience.attempts:
                told = f"gave up fetching {self.url} after {failures} attempts without a new byte ({reason})"
                kept = f"{here} bytes are kept and will be resumed: " if here else ""
                raise DownloadError(f"{told}; {kept}try again, or {self.by_hand}")
            log.warning("fetching %s: %s; trying again", self.url, reason)
            time.sleep(self.patience.pause_s * 2 ** (failures - 1))

    def _attempt(self) -> None:
        """One request: for the rest if the server agrees that it is the same file, else for all. Returns when it is whole."""
        have, tag_file = _size(self.part), _beside(self.part, ".etag")
        tag = tag_file.read_text() if have and tag_file.is_file() else ""
        rest = {"Range": f"bytes={have}-"} | ({"If-Range": tag} if tag else {}) if have else {}
        request = Request(self.url, headers={"User-Agent": "flowfeat", "Accept-Encoding": "identity"} | rest)
        try:
            with self._network():
                response = urlopen(request, timeout=self.patience.stall_s)
        except HTTPError as refusal:
            response = refusal  # an answer like any other
        with response:
            status, headers = response.status, response.headers
            extent, new_tag = headers.get("Content-Range", ""), headers.get("ETag", "")
            total, same_file = extent.rpartition("/")[2], not tag or new_tag in ("", tag)
            if status == 416 and total == str(have) and same_file:
                return  # it was whole, a killed run had not renamed it yet
            if status == 416 or (status == 206 and not (same_file and extent.startswith(f"bytes {have}-"))):
                _discard(self.part)
                raise _BrokenError(f"the server does not go on at byte {have}")
            self._check(status, response.reason, headers)
            if status == 200:  # all of it, for want of ranges or because the file is another one now
                have, total = 0, headers.get("Content-Length", "")
            if not (total.isdecimal() or self.hash_known):
                raise DownloadError(f"{self.url} does not state a length, and no hash is known: {self.by_hand}")
            if have == 0:
                _discard(self.part)
                if new_tag and not new_tag.startswith("W/"):  # a weak tag promises no equal bytes
                    tag_file.write_text(new_tag)
            self._copy(response, have, int(total) if total.isdecimal() else None)

    def _check(self, status: int, reason: str, headers: Message) -> None:
        """Whether what comes is a file at all."""
        if status >= 500 or status in (408, 429):  # request timeout, too many requests
            raise _BrokenError(f"the server answered {status} {reason}")
        if status not in (200, 206):
            raise DownloadError(f"{self.url} answered {status} {reason}; is the address still right? {self.by_hand}")
        if headers.get_content_type() == "text/html":
            raise ValueError(f"{self.url} answered with a web page instead of a file: {self.by_hand}")

    def _copy(self, response: HTTPResponse, here: int, total: int | None) -> None:
        try:
            with self.part.open("ab" if here else "wb") as file:
                while True:
                    with self._network():
                        block = response.read1(_BLOCK_BYTES)
                    if not block:
                        break
                    file.write(block)
                    here += len(block)
                    if self.progress is not None:
                        self.progress(here, total)
        except OSError as error:
            error.filename = error.filename or str(self.part)  # a failing write does not say where
            raise
        if total is not None and here != total:
            raise _BrokenError(f"the server closed after {here} of {total} bytes")

    @contextmanager
    def _network(self) -> Iterator[None]:
        """Tells trouble with the line, which another attempt may mend, from trouble with the disk, which it will not."""
        try:
            yield
        except HTTPError:
            raise
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            silent = f"nothing came for {self.patience.stall_s:g} s" if isinstance(reason, TimeoutError) else ""
            raise _BrokenError(silent or str(reason) or type(error).__name__) from error


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _beside(part, ".etag").unlink(missing_ok=True)

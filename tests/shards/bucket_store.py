"""The object store of the tests, writable: enough of S3 for s3fs to list, put (whole or in parts), create and delete.

Objects are files under `root`; they appear in one rename. What goes wrong, beside what the reading store knows: "expired" (the answer of
S3 to a session token that has run out), "cuts the upload" (the connection ends in the middle of the body).
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from hashlib import md5
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from tests.shards.object_store import Handler, ObjectStore, serving

PAGE = 20


class BucketStore(ObjectStore):
    """calls: method and object of every request. gate: while it is closed, writes wait."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, BucketHandler)
        self.calls: list[tuple[str, str]] = []
        self.parts = root.parent / f"{root.name}-parts"
        self.lock = threading.Lock()
        self.conditional = True

    def count(self, method: str, ending: str = "") -> int:
        return sum(m == method and path.endswith(ending) for m, path in self.calls)


class BucketHandler(Handler):
    server: BucketStore

    def _wrong(self) -> tuple[str, str, dict[str, list[str]]]:
        """What goes wrong, the object, the query."""
        parts = urlsplit(self.path)
        name = unquote(parts.path).removeprefix("/bucket").lstrip("/")
        with self.server.lock:
            number = len(self.server.calls)
            self.server.calls.append((self.command, name))
        wrong = self.server.wrong(number, f"{self.command} {name}")
        return wrong, name, parse_qs(parts.query, keep_blank_values=True)

    def _answer(self, body: bool) -> None:
        wrong, name, query = self._wrong()
        if self._fails(wrong):
            return
        if not name:
            self._list(query)
            return
        file = self.server.root / name
        if not file.is_file():
            self._error(404, "NoSuchKey")
            return
        data = file.read_bytes()
        start, stop = 0, len(data)
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if found:
            start, stop = int(found[1]), min(stop, int(found[2] or stop - 1) + 1)
            if start >= len(data):
                self._error(416, "InvalidRange")
                return
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Last-Modified", formatdate(file.stat().st_mtime, usegmt=True))
        self.send_header("ETag", f'"{md5(data).hexdigest()}"')
        self.end_headers()
        if body:
            whole = data[start:stop]
            self.wfile.write(whole[: len(whole) // 2] if wrong == "cuts the body" else whole)
            self.close_connection = wrong == "cuts the body"

    def _fails(self, wrong: str) -> bool:
        if wrong == "hangs":
            self.server.released.wait(20)
            self.close_connection = True
        elif wrong == "expired":
            self._error(400, "ExpiredToken")
        elif wrong.isdigit():
            self._error(
                int(wrong),
                {403: "AccessDenied", 404: "NoSuchKey", 503: "ServiceUnavailable"}.get(int(wrong), "InternalError"),
            )
        else:
            return False
        return True

    def _list(self, query: dict[str, list[str]]) -> None:
        prefix = query.get("prefix", [""])[0]
        after = query.get("continuation-token", [""])[0]
        names = sorted(p.relative_to(self.server.root).as_posix() for p in self.server.root.rglob("*") if p.is_file())
        names = [n for n in names if n.startswith(prefix) and n > after and ".tmp" not in n]
        page = names[:PAGE]
        text = "<?xml version='1.0'?><ListBucketResult><Name>bucket</Name>"
        text += f"<Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
        if len(names) > PAGE:
            text += f"<IsTruncated>true</IsTruncated><NextContinuationToken>{escape(page[-1])}</NextContinuationToken>"
        for name in page:
            path = self.server.root / name
            tag = md5(path.read_bytes()).hexdigest()
            text += f'<Contents><Key>{escape(name)}</Key><Size>{path.stat().st_size}</Size><ETag>"{tag}"</ETag>'
            text += "<LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>"
        self._send(200, text + "</ListBucketResult>")

    def do_PUT(self) -> None:
        wrong, name, query = self._wrong()
        length = int(self.headers.get("Content-Length") or 0)
        if wrong == "cuts the upload":
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        data = self.rfile.read(length)
        if len(data) < length:  # its sender has died
            self.close_connection = True
            return
        if self._fails(wrong):
            return
        if "aws-chunked" in (self.headers.get("Content-Encoding") or ""):
            data = _unchunked(data)
        if "partNumber" in query:
            place = self.server.parts / query["uploadId"][0] / query["partNumber"][0]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            self._send(200, "", md5(data).hexdigest())
            return
        with self.server.lock:
            if self.headers.get("If-None-Match") and self.server.conditional and (self.server.root / name).exists():
                self._error(412, "PreconditionFailed", "<Condition>If-None-Match</Condition>")
                return
            self._store(name, data)
        self._send(200, "", md5(data).hexdigest())

    def _store(self, name: str, data: bytes) -> None:
        target = self.server.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{uuid.uuid4().hex}.tmp")
        temporary.write_bytes(data)
        os.replace(temporary, target)

    def do_POST(self) -> None:
        wrong, name, query = self._wrong()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self._fails(wrong):
            return
        if "uploads" in query:
            upload = uuid.uuid4().hex
            text = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            self._send(200, text)
            return
        folder = self.server.parts / query["uploadId"][0]
        parts = sorted(folder.iterdir(), key=lambda part: int(part.name))
        self._store(name, b"".join(part.read_bytes() for part in parts))
        shutil.rmtree(folder)
        self._send(200, "<CompleteMultipartUploadResult><ETag>1</ETag></CompleteMultipartUploadResult>")

    def do_DELETE(self) -> None:
        wrong, name, query = self._wrong()
        if self._fails(wrong):
            return
        if "uploadId" in query:
            shutil.rmtree(self.server.parts / query["uploadId"][0], ignore_errors=True)
        else:
            (self.server.root / name).unlink(missing_ok=True)
        self._send(204, "")

    def _error(self, status: int, code: str, more: str = "") -> None:
        self._send(status, f"<Error><Code>{code}</Code><Message>made up: {code}</Message>{more}</Error>")

    def _send(self, status: int, text: str, tag: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text.encode())))
        if tag:
            self.send_header("ETag", f'"{tag}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())


def _unchunked(data: bytes) -> bytes:
    whole = b""
    while data:
        head, _, rest = data.partition(b"\r\n")
        size = int(head.split(b";")[0], 16)
        if not size:
            break
        whole, data = whole + rest[:size], rest[size + 2 :]
    return whole


@contextmanager
def bucket_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketStore]:
    """A store that "s3://bucket" means."""
    s3fs = pytest.importorskip("s3fs", reason="the extra `remote` is not installed")
    root.mkdir(parents=True, exist_ok=True)
    s3fs.S3FileSystem.clear_instance_cache()  # another test's store was at another port
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)  # those of its own, before ours
    with serving(BucketStore(root)) as store:
        for name, value in store.s3_environment.items():
            monkeypatch.setenv(name, value)
        yield store

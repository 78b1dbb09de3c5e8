"""A local object store for the tests: files of a folder over HTTP with ranges, also as S3 answers, and wrong on demand.

`wrong` says what goes wrong with a request by its number: a status such as "500", "cuts the body", "hangs", "ignores ranges".
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar


class ObjectStore(ThreadingHTTPServer):
    """Serves `root` at /bucket/. wrong(n, path): what goes wrong with the n-th request, "" for nothing."""

    daemon_threads = True

    def __init__(self, root: Path, handler: type[BaseHTTPRequestHandler] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler or Handler)
        self.root = root
        self.wrong: Callable[[int, str], str] = lambda number, path: ""
        self.requests: list[tuple[str, str | None]] = []
        self.released = threading.Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        return f"{self.endpoint}/bucket"

    @property
    def s3_environment(self) -> dict[str, str]:
        """With these variables "s3://bucket" is this store."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def asked(self, name: str) -> list[str | None]:
        """Ranges of the requests for files whose path ends so."""
        return [asked for path, asked in self.requests if path.endswith(name)]


class Handler(BaseHTTPRequestHandler):
    server: ObjectStore
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        asked, path = self.headers.get("Range"), self.path.split("?")[0].removeprefix("/bucket/")
        number = len(self.server.requests)
        self.server.requests.append((path, asked))
        wrong = self.server.wrong(number, path)
        file = self.server.root / path
        if wrong == "hangs":
            self.server.released.wait(20)
            self.close_connection = True
            return
        if wrong.isdigit() or not file.is_file():
            self._refuse(int(wrong or 404))
            return
        data = file.read_bytes()
        start, stop = 0, len(data)
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
        ranged = found is not None and wrong != "ignores ranges"
        if found and ranged:
            start, stop = int(found[1]), min(stop, int(found[2] or stop - 1) + 1)
        self.send_response(206 if ranged else 200)
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Last-Modified", formatdate(0, usegmt=True))
        self.send_header("ETag", '"1"')
        self.end_headers()
        if body:
            whole = data[start:stop]
            self.wfile.write(whole[: len(whole) // 2] if wrong == "cuts the body" else whole)
            self.close_connection = wrong == "cuts the body"

    def _refuse(self, status: int) -> None:
        names = {404: "NoSuchKey", 403: "AccessDenied"}
        text = f"<Error><Code>{names.get(status, 'InternalError')}</Code><Message>made up</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


_Store = TypeVar("_Store", bound=ObjectStore)


@contextmanager
def storing(root: Path) -> Iterator[ObjectStore]:
    with serving(ObjectStore(root)) as store:
        yield store


@contextmanager
def serving(store: _Store) -> Iterator[_Store]:
    thread = threading.Thread(target=store.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        store.released.set()
        store.shutdown()
        thread.join()
        store.server_close()

"""A local file server for the tests of downloads: it closes early, stalls, ignores or misanswers ranges, and lies."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from common.download import Patience

CONTENT = hashlib.sha256(b"seed").digest() * 4096  # 128 KiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()
HASTY = Patience(attempts=3, stall_s=1.0, pause_s=0.001, wait_s=0.3)


class Server(ThreadingHTTPServer):
    """Serves `content` at any path, with `tag` as its ETag.

    plan: what goes wrong with the next requests, one after the other; always: with all that follow. A number is a refusal.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[str] = []
        self.always = "nothing"
        self.content, self.tag = CONTENT, '"one"'
        self.ranges: list[str | None] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wrong = self.server.plan.pop(0) if self.server.plan else self.server.always
        asked, content, tag = self.headers.get("Range"), self.server.content, self.server.tag
        self.server.ranges.append(asked)
        if wrong.isdigit():
            self.send_error(int(wrong))
            return
        same_file = wrong == "ignores If-Range" or self.headers.get("If-Range") in (None, tag)
        ranged = asked and same_file and wrong not in ("ignores ranges", "no length", "web page")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and ranged else 0
        if start and start >= len(content):
            self.send_response(416)
            if wrong != "bare 416":
                self.send_header("Content-Range", f"bytes */{len(content)}")
        else:
            self.send_response(206 if start else 200)
            if start:
                told = 0 if wrong == "wrong range" else start
                self.send_header("Content-Range", f"bytes {told}-{len(content) - 1}/{len(content)}")
            if wrong != "no length":
                self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Content-Type", "text/html" if wrong == "web page" else "application/octet-stream")
        if tag:
            self.send_header("ETag", tag)
        self.end_headers()
        body = content[start:]
        self.wfile.write(body[: len(body) // 2] if wrong in ("closes early", "stalls", "changes") else body)
        self.wfile.flush()
        if wrong == "changes":
            self.server.content, self.server.tag = content[::-1], '"two"'
        if wrong == "stalls":
            self.server.released.wait(10)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()

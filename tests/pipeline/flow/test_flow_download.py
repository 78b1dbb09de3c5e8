"""Downloads against a local server that closes early, stalls, ignores ranges and lies."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest

from pipeline.flow.weights.catalogue import KnownWeights, find
from pipeline.flow.weights.download import Patience, fetch, get

CONTENT = bytes(range(256)) * 400
DIGEST = hashlib.sha256(CONTENT).hexdigest()
HASTY = Patience(attempts=4, stall_s=0.3, pause_s=0.01)


class Server(ThreadingHTTPServer):
    """Serves `content`; `behaviour` names what it does wrong, requests are noted."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = "honest"
        self.content, self.tag = CONTENT, '"one"'
        self.ranges: list[str | None] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        content, wrong = self.server.content, self.server.behaviour
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        same_file = self.headers.get("If-Range") in (None, self.server.tag)
        start = int(asked.split("=")[1].rstrip("-")) if asked and same_file and wrong != "ignores ranges" else 0
        if wrong == "absent":
            return self.send_error(404)
        if wrong == "overloaded" and len(self.server.ranges) < 3:
            return self.send_error(503)
        if start > len(content) or (start == len(content) and start):
            return self.send_error(416)
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "text/html" if wrong == "web page" else "application/octet-stream")
        if start:
            told = 0 if wrong == "wrong range" else start
            self.send_header("Content-Range", f"bytes {told}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", self.server.tag)
        if wrong != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        first_time = len(self.server.ranges) == 1
        if wrong in ("closes early", "ignores ranges", "wrong range", "changes the file") and first_time:
            self.wfile.write(body[: len(body) // 2])
            if wrong == "changes the file":
                self.server.content, self.server.tag = CONTENT[::-1], '"two"'
        elif wrong == "always closes early":
            self.wfile.write(body[: len(body) // 2])
        elif wrong == "stalls" and first_time:
            self.wfile.write(body[:1000])
            self.wfile.flush()
            self.server.released.wait(5)
        else:
            self.wfile.write(body)
        self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.released.set()
    made.shutdown()
    thread.join()
    made.server_close()


def left_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize(
    "behaviour", ["honest", "closes early", "stalls", "ignores ranges", "wrong range", "overloaded", "no length"]
)
def test_ends_with_the_right_file(behaviour: str, server: Server, tmp_path: Path) -> None:
    server.behaviour = behaviour
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "deep" / "file.bin"
    digest = fetch(server.url, target, sha256_prefix=DIGEST[:8], patience=HASTY, progress=lambda *at: seen.append(at))
    assert digest == DIGEST and target.read_bytes() == CONTENT
    assert left_in(target.parent) == ["file.bin"]
    assert seen[-1] == (len(CONTENT), None if behaviour == "no length" else len(CONTENT))
    if behaviour == "closes early":
        assert server.ranges == [None, f"bytes={len(CONTENT) // 2}-"], "it goes on where it broke off"
    if behaviour == "stalls":
        assert server.ranges[1] == "bytes=1000-"


def test_a_later_call_resumes(server: Server, tmp_path: Path) -> None:
    server.behaviour = "always closes early"
    target = tmp_path / "file.bin"
    with pytest.raises(
        ValueError, match=r"gave up fetching http.* after 2 attempts .*the server closed after .* will be resumed"
    ):
        fetch(server.url, target, patience=Patience(2, 0.3, 0.01))
    assert not target.exists()
    here = (tmp_path / "file.bin.part").stat().st_size
    assert 0 < here < len(CONTENT)
    server.behaviour = "honest"
    assert fetch(server.url, target, sha256_prefix=DIGEST, patience=HASTY) == DIGEST
    assert server.ranges[-1] == f"bytes={here}-"
    assert left_in(tmp_path) == ["file.bin"]


def test_wrong_content_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.content = b"x" * len(CONTENT)
    with pytest.raises(ValueError, match=rf"sha256 starts with .*, not {DIGEST[:8]}; nothing was kept"):
        fetch(server.url, tmp_path / "file.bin", sha256_prefix=DIGEST[:8], patience=HASTY)
    assert left_in(tmp_path) == []


def test_a_file_that_changes_between_attempts_is_not_mixed(server: Server, tmp_path: Path) -> None:
    server.behaviour = "changes the file"
    fetch(server.url, tmp_path / "file.bin", patience=HASTY)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT[::-1]


def test_a_partial_file_that_is_too_long_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(server.url, tmp_path / "file.bin", patience=HASTY) == DIGEST


@pytest.mark.parametrize(
    ("behaviour", "message"), [("absent", "answered 404"), ("web page", "a web page instead of a file")]
)
def test_refusals_are_final(behaviour: str, message: str, server: Server, tmp_path: Path) -> None:
    server.behaviour = behaviour
    with pytest.raises(ValueError, match=message):
        fetch(server.url, tmp_path / "file.bin", patience=HASTY)
    assert len(server.ranges) == 1 and left_in(tmp_path) == []


def test_no_server_and_other_addresses(server: Server, tmp_path: Path) -> None:
    url = server.url
    with pytest.raises(ValueError, match="only http and https"):
        fetch("file:///etc/passwd", tmp_path / "x")
    closed = url.replace(str(server.server_address[1]), "9")
    with pytest.raises(ValueError, match="gave up fetching"):
        fetch(closed, tmp_path / "x", patience=Patience(2, 0.3, 0.01))


def test_two_processes_do_not_fetch_into_one_file(server: Server, tmp_path: Path) -> None:
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match="another process is fetching"):
        fetch(server.url, tmp_path / "file.bin", patience=HASTY)
    os.close(held)
    assert fetch(server.url, tmp_path / "file.bin", patience=HASTY) == DIGEST


def test_archive_members_and_files_that_are_here(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path))
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("models/raft-x.pth", b"weights")
    server.content = packed.getvalue()
    entry = KnownWeights("raft-x", "raft", "raft-x.pth", server.url, "none", 1.0, "nothing", member="models/raft-x.pth")
    assert get(entry, patience=HASTY).read_bytes() == b"weights"
    assert get(entry, patience=HASTY) == tmp_path / "flow" / "raft-x.pth"
    assert len(server.ranges) == 1, "what is here is not fetched again"
    other = KnownWeights("raft-y", "raft", "raft-y.pth", server.url, "none", 1.0, "nothing", member="models/raft-y.pth")
    with pytest.raises(ValueError, match=r"no zip archive with models/raft-y\.pth inside"):
        get(other, patience=HASTY)
    with pytest.raises(ValueError, match=r"cannot be downloaded as a file.*convert-smurf"):
        get(find("smurf-kitti"))

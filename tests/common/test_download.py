"""Downloads against a local server that closes early, stalls, ignores ranges and lies."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from common import download
from common import progress as progress_module
from common.download import DownloadError, fetch, forget
from common.progress import shown_in_megabytes
from tests.common.download_server import CONTENT, DIGEST, HASTY, Server, serving

HALF, THREE_QUARTERS = len(CONTENT) // 2, len(CONTENT) * 3 // 4


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def left_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize(
    "trouble", ["nothing", "closes early", "stalls", "ignores ranges", "wrong range", "503", "429", "no length"]
)
def test_ends_with_the_right_file(trouble: str, server: Server, tmp_path: Path) -> None:
    server.plan = ["closes early"] * (trouble in ("ignores ranges", "wrong range")) + [trouble]
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "deep" / "file.bin"
    assert fetch(server.url, target, sha256=DIGEST[:8], patience=HASTY, progress=lambda *at: seen.append(at)) == DIGEST
    assert target.read_bytes() == CONTENT
    assert left_in(target.parent) == ["file.bin"], "a published hash is not recorded"
    assert seen[-1] == (len(CONTENT), None if trouble == "no length" else len(CONTENT))
    if trouble in ("closes early", "stalls"):
        assert server.ranges == [None, f"bytes={HALF}-"], "it goes on where it broke off"


def test_without_a_published_hash_it_is_recorded_and_compared_ever_after(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "w.pth"
    assert fetch(server.url, target) == DIGEST
    assert left_in(tmp_path) == ["w.pth", "w.pth.sha256"]
    assert (tmp_path / "w.pth.sha256").read_text() == f"{DIGEST}  w.pth\n"
    assert fetch(server.url, target) == DIGEST and len(server.ranges) == 1, "what is here is not fetched again"
    target.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(ValueError, match=r"not [0-9a-f]{64} as recorded: delete it and w\.pth\.sha256 to get http"):
        fetch(server.url, target)
    target.unlink()
    server.content = CONTENT[::-1]
    with pytest.raises(ValueError, match=r"nothing was kept: try again, or delete w\.pth\.sha256, or put"):
        fetch(server.url, target)
    assert left_in(tmp_path) == ["w.pth.sha256"]
    forget(target)
    assert fetch(server.url, target) == hashlib.sha256(CONTENT[::-1]).hexdigest()


def test_a_file_put_there_by_hand_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "w.pth"
    target.write_bytes(CONTENT)
    with pytest.raises(ValueError, match=r"has sha256 .*, not 0000 as published: delete it to get http"):
        fetch("http://127.0.0.1:9/w.pth", target, sha256="0000")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert fetch("http://127.0.0.1:9/w.pth", target) == DIGEST
    assert left_in(tmp_path) == ["w.pth"], "a read-only cache serves without a record"
    monkeypatch.undo()
    fetch("http://127.0.0.1:9/w.pth", target)
    assert left_in(tmp_path) == ["w.pth", "w.pth.sha256"]


def test_bytes_that_move_reset_the_count_of_failures(server: Server, tmp_path: Path) -> None:
    server.plan = ["closes early", "closes early", "503"]
    fetch(server.url, tmp_path / "w.pth", patience=HASTY)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-", *[f"bytes={THREE_QUARTERS}-"] * 2]


def test_a_later_call_resumes(server: Server, tmp_path: Path) -> None:
    server.always = "closes early"
    target = tmp_path / "file.bin"
    with pytest.raises(
        DownloadError, match=r"gave up fetching http.* after 2 attempts .*the server closed after .* will be resumed"
    ) as caught:
        fetch(server.url, target, patience=replace(HASTY, attempts=2))
    assert str(target) in str(caught.value) and "\n" not in str(caught.value)
    assert left_in(tmp_path) == ["file.bin.part", "file.bin.part.etag"]
    here = (tmp_path / "file.bin.part").stat().st_size
    assert 0 < here < len(CONTENT)
    server.always = "nothing"
    assert fetch(server.url, target, sha256=DIGEST, patience=HASTY) == DIGEST
    assert server.ranges[-1] == f"bytes={here}-"
    assert left_in(tmp_path) == ["file.bin"]


def test_a_server_that_makes_us_start_over_again_and_again_comes_to_an_end(server: Server, tmp_path: Path) -> None:
    server.plan = ["closes early", "wrong range"] * 20
    with pytest.raises(DownloadError, match="gave up"):
        fetch(server.url, tmp_path / "w.pth", patience=HASTY)
    assert len(server.ranges) < 8


@pytest.mark.parametrize(
    ("sha256", "answer", "requests"),
    [(None, "nothing", 2), (DIGEST, "nothing", 1), (DIGEST, "bare 416", 1), (DIGEST, "ignores ranges", 1)],
)
def test_a_complete_part_is_not_fetched_again(
    sha256: str | None, answer: str, requests: int, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the last byte and the rename."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "publish", killed)
    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, tmp_path / "w.pth", sha256=sha256, patience=HASTY)
    monkeypatch.undo()
    server.always = answer
    seen: list[int] = []
    fetch(server.url, tmp_path / "w.pth", sha256=sha256, patience=HASTY, progress=lambda here, _: seen.append(here))
    assert (tmp_path / "w.pth").read_bytes() == CONTENT and seen == []
    assert server.ranges == [None, f"bytes={len(CONTENT)}-"][:requests]
    assert left_in(tmp_path) == ["w.pth"] + ["w.pth.sha256"] * (sha256 is None)


@pytest.mark.parametrize("tag", ['"one"', ""])
@pytest.mark.parametrize("sha256", [DIGEST, None])
def test_a_part_that_is_too_long_is_thrown_away(tag: str, sha256: str | None, server: Server, tmp_path: Path) -> None:
    server.tag = tag
    (tmp_path / "w.pth.part").write_bytes(CONTENT + b"more")
    assert fetch(server.url, tmp_path / "w.pth", sha256=sha256, patience=HASTY) == DIGEST


def test_wrong_content_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.content = b"x" * len(CONTENT)
    with pytest.raises(ValueError, match=rf"sha256 starts with .*, not {DIGEST[:8]}; nothing was kept"):
        fetch(server.url, tmp_path / "file.bin", sha256=DIGEST[:8], patience=HASTY)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("second", ["nothing", "ignores If-Range"])
def test_a_file_that_changes_between_attempts_is_not_mixed(second: str, server: Server, tmp_path: Path) -> None:
    server.plan = ["changes", second]
    fetch(server.url, tmp_path / "file.bin", patience=HASTY)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT[::-1]
    assert len(server.ranges) == (2 if second == "nothing" else 3), (
        "If-Range spares the request that would be thrown away"
    )


def test_a_weak_tag_is_no_promise_of_equal_bytes(server: Server, tmp_path: Path) -> None:
    server.tag, server.plan = 'W/"one"', ["closes early"]
    with pytest.raises(DownloadError):
        fetch(server.url, tmp_path / "w.pth", patience=replace(HASTY, attempts=1))
    assert left_in(tmp_path) == ["w.pth.part"]


@pytest.mark.parametrize(
    ("trouble", "kind", "message"),
    [
        ("404", DownloadError, "http.* answered 404 Not Found"),
        ("web page", ValueError, "http.* a web page instead of a file"),
        ("no length", DownloadError, "http.* does not state a length"),
    ],
)
def test_refusals_are_final(trouble: str, kind: type[Exception], message: str, server: Server, tmp_path: Path) -> None:
    server.always = trouble
    with pytest.raises(kind, match=rf"{message}.*put it at .*file\.bin$"):
        fetch(server.url, tmp_path / "file.bin", patience=HASTY)
    assert len(server.ranges) == 1 and left_in(tmp_path) == []
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    with pytest.raises(kind, match=message):
        fetch(server.url, tmp_path / "file.bin", patience=HASTY)
    assert left_in(tmp_path) == ["file.bin.part"], "what a refusing server, or a login page, says costs no bytes"


def test_a_full_disk_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    server.tag = ""
    (tmp_path / "file.bin.part").symlink_to("/dev/full")
    part = tmp_path / "file.bin.part"
    real = Path.unlink
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "unlink", lambda self, **kw: None if self == part else real(self, **kw))
        with pytest.raises(OSError, match=r"No space left.*file\.bin\.part") as caught:
            fetch(server.url, tmp_path / "file.bin", patience=HASTY)
    assert caught.value.errno == errno.ENOSPC and len(server.ranges) == 1


def test_no_server_and_other_addresses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only http and https"):
        fetch("file:///etc/passwd", tmp_path / "x")
    with pytest.raises(DownloadError, match=r"gave up fetching http://127\.0\.0\.1:9/x .*Connection refused"):
        fetch("http://127.0.0.1:9/x", tmp_path / "x", patience=HASTY)


def test_processes_that_start_together_fetch_once(server: Server, tmp_path: Path) -> None:
    server.plan = ["stalls"]
    digests: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: digests.append(fetch(server.url, tmp_path / "w", patience=replace(HASTY, wait_s=5)))
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert digests == [DIGEST] * 6 and server.ranges == [None, f"bytes={HALF}-"]
    assert left_in(tmp_path) == ["w", "w.sha256"]


def test_waiting_for_a_process_that_gets_nothing_ends(server: Server, tmp_path: Path) -> None:
    held = os.open(tmp_path / "file.bin.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(OSError, match=r"another process is fetching .*file\.bin, but nothing has come for 0\.3 s"):
        fetch(server.url, tmp_path / "file.bin", patience=HASTY)
    assert fetch(server.url, tmp_path / "other.bin", patience=HASTY) == DIGEST, "the lock is the file's own"
    part, began = tmp_path / "file.bin.part", time.monotonic()

    def grow() -> None:
        for size in range(1, 6):
            part.write_bytes(CONTENT[:size])
            time.sleep(0.15)
        os.close(held)

    growing = threading.Thread(target=grow)
    growing.start()
    assert fetch(server.url, tmp_path / "file.bin", patience=HASTY) == DIGEST
    assert time.monotonic() - began > 2 * HASTY.wait_s, "it waits as long as bytes come"
    growing.join()


def test_progress_is_shown_in_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = StringIO()
    monkeypatch.setattr(progress_module, "Console", lambda file: Console(file=shown))
    monkeypatch.setattr(
        progress_module.ProgressDisplay.__init__, "__kwdefaults__", {"console": None, "plain_every_s": 0.0}
    )
    with shown_in_megabytes("weights") as show:
        assert shown.getvalue() == ""
        show(1_250_000, 2_000_000)
        show(1_500_000, 2_000_000)
        show(1_750_000, None)
    first, second, third = shown.getvalue().splitlines()
    assert first.startswith("weights: 1.2/2 MB") and "left" not in first
    assert second.startswith("weights: 1.5/2 MB, ") and second.endswith(" left")
    assert third.startswith("weights: 1.8 MB, ")

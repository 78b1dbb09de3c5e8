"""Published encoder files: the download that survives a bad line."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from tests.trainer.model_fixtures import OFFICIAL, encoder_state
from trainer import FlowFeat
from trainer import encoder_weights as weights
from trainer.encoder_weights import Published, download, fetch_encoder

CONTENT = bytes(hashlib.sha256(b"seed").digest()) * 4096  # 128 KiB


class Server(ThreadingHTTPServer):
    """Serves CONTENT at any path; `plan` holds what goes wrong with the next requests, then all goes well."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[str] = []
        self.ranges: list[str | None] = []
        self.content = CONTENT
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        trouble = self.server.plan.pop(0) if self.server.plan else "none"
        if trouble.isdigit():
            self.send_error(int(trouble))
            return
        content = self.server.content
        start = (
            int(asked.removeprefix("bytes=").rstrip("-")) if asked and trouble not in ("no_resume", "no_length") else 0
        )
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if trouble != "no_length":
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        if trouble in ("truncate", "stall"):
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)
        self.wfile.flush()
        if trouble == "stall":
            self.server.released.wait(10)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.released.set()
    running.shutdown()
    running.server_close()
    thread.join()


def quick(url: str, path: Path, attempts: int = 3) -> None:
    download(url, path, timeout_s=0.3, attempts=attempts, wait_s=0.001)


def test_a_download_is_whole_and_leaves_nothing_else(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    download(server.url, tmp_path / "w.pth", progress=lambda done, total: seen.append((done, total)))
    assert (tmp_path / "w.pth").read_bytes() == CONTENT and os.listdir(tmp_path) == ["w.pth"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize("trouble", ["truncate", "stall"])
def test_a_broken_transfer_is_resumed_where_it_stopped(trouble: str, server: Server, tmp_path: Path) -> None:
    server.plan = [trouble, trouble, "503"]
    quick(server.url, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    half, three_quarters = len(CONTENT) // 2, len(CONTENT) * 3 // 4
    assert server.ranges == [None, f"bytes={half}-", f"bytes={three_quarters}-", f"bytes={three_quarters}-"]


def test_a_later_run_resumes_the_part_of_an_earlier_one(server: Server, tmp_path: Path) -> None:
    server.plan = ["truncate", "503", "503"]
    with pytest.raises(OSError, match="Service Unavailable"):
        quick(server.url, tmp_path / "w.pth", attempts=2)
    assert os.listdir(tmp_path) == ["w.pth.part"]
    quick(server.url, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT and server.ranges[-1] == f"bytes={len(CONTENT) // 2}-"


def test_a_server_that_cannot_resume_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.plan = ["truncate", "no_resume"]
    quick(server.url, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_complete_or_overlong_part_is_handled(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "w.pth.part"
    part.write_bytes(CONTENT)  # killed between the last byte and the rename
    quick(server.url, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT and len(server.ranges) == 1
    part.write_bytes(CONTENT + b"more")
    quick(server.url, tmp_path / "again.pth")
    part.rename(tmp_path / "third.pth.part")
    quick(server.url, tmp_path / "third.pth")
    assert (tmp_path / "third.pth").read_bytes() == CONTENT


def test_giving_up_is_clear(server: Server, tmp_path: Path) -> None:
    server.plan = ["404"]
    with pytest.raises(OSError, match="the server says 404"):
        quick(server.url, tmp_path / "w.pth")
    assert len(server.ranges) == 1
    server.plan = ["no_length"] * 3
    with pytest.raises(OSError, match="does not state a length"):
        quick(server.url, tmp_path / "w.pth")
    assert not (tmp_path / "w.pth").exists()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> Path:
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path / "cache"))
    torch.save({"model": encoder_state("tiny_mae16")}, tmp_path / "published.pth")
    server.content = (tmp_path / "published.pth").read_bytes()
    monkeypatch.setitem(weights.PUBLISHED, "tiny_mae16", Published(server.url))
    return tmp_path / "cache"


def test_a_name_becomes_a_model_and_its_hash_is_kept(cache: Path, server: Server) -> None:
    model = FlowFeat.create("tiny_mae16", init="pretrained")
    assert torch.equal(model.encoder.norm.weight, encoder_state("tiny_mae16")["norm.weight"])
    sha256 = hashlib.sha256(server.content).hexdigest()
    assert (cache / "weights.pth.sha256").read_text() == f"{sha256}  weights.pth\n"
    assert model.encoder_source == f"weights.pth sha256:{sha256}"
    fetch_encoder("tiny_mae16")
    assert len(server.ranges) == 1


def test_a_file_that_changed_is_refused(cache: Path) -> None:
    path = fetch_encoder("tiny_mae16")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match=r"not [0-9a-f]{64} as recorded: delete it"):
        fetch_encoder("tiny_mae16")


def test_a_known_hash_is_demanded_of_the_download(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weights.PUBLISHED, "tiny_mae16", Published(server.url, "0" * 64))
    with pytest.raises(ValueError, match="not 0000"):
        fetch_encoder("tiny_mae16")
    assert not (cache / "weights.pth.sha256").exists()


def test_processes_that_start_together_download_once(cache: Path, server: Server) -> None:
    threads = [threading.Thread(target=fetch_encoder, args=("tiny_mae16",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.ranges) == 1


def test_being_offline_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path))
    monkeypatch.setitem(weights.PUBLISHED, "tiny_dino8", Published("http://127.0.0.1:9/w.pth"))
    with pytest.raises(OSError) as caught:
        fetch_encoder("tiny_dino8", attempts=1, timeout_s=0.3)
    for part in (
        "tiny_dino8",
        "fetch http://127.0.0.1:9/w.pth by hand",
        str(tmp_path / "w.pth"),
        "init=PATH",
        "init='random'",
    ):
        assert part in str(caught.value)
    with pytest.raises(ValueError, match="demo_vit8 has no published weights"):
        fetch_encoder("demo_vit8")


def test_every_official_variant_has_an_address() -> None:
    assert set(weights.PUBLISHED) == set(OFFICIAL)
    assert all(
        source.url.startswith("https://") and source.url.endswith(".pth") for source in weights.PUBLISHED.values()
    )

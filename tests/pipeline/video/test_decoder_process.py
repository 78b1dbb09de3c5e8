"""The decoding process behind the decoder: it hangs, crashes, dies with its parent and does not grow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from pipeline.video import child_process
from pipeline.video.datasets import Video
from pipeline.video.decoder import Decoder
from tests.pipeline.video.asking import ask, file, reject, settings
from tests.pipeline.video.numbered_videos import write_video

ROOT = Path(__file__).resolve().parents[3]


def hanging(folder: Path) -> Video:
    """A frame folder whose pictures are pipes without a writer: opening one blocks for ever."""
    folder.mkdir()
    for i in range(5):
        os.mkfifo(folder / f"{i}.jpg")
    return Video("hanging", folder, "frames", 24.0)


def test_a_hang_ends_at_the_deadline_and_the_next_video_works(tmp_path: Path, clip: Path) -> None:
    with Decoder() as decoder:
        ask(decoder, file(clip))
        first = decoder.child_pid
        refused = reject(decoder, hanging(tmp_path / "pipes"), deadline_s=0.5)
        assert refused.reason == "timeout" and "0.5 s" in refused.detail and refused.seconds >= 0.5
        assert decoder.child_pid is None and first is not None and not psutil.pid_exists(first)
        assert len(ask(decoder, file(clip))) == 1
        assert decoder.children_started == 2


def test_a_crash_is_reported_and_the_next_video_works(tmp_path: Path, clip: Path) -> None:
    with Decoder() as decoder:
        ask(decoder, file(clip))
        pid = decoder.child_pid
        assert pid is not None
        killer = threading.Timer(0.5, os.kill, (pid, signal.SIGSEGV))
        killer.start()
        refused = reject(decoder, hanging(tmp_path / "pipes"), deadline_s=60)
        killer.join()
        assert refused.reason == "decoder_crashed" and "SIGSEGV" in refused.detail
        assert len(ask(decoder, file(clip))) == 1


def test_a_child_that_died_between_videos_is_replaced_silently(clip: Path) -> None:
    with Decoder() as decoder:
        ask(decoder, file(clip))
        assert decoder.child_pid is not None
        os.kill(decoder.child_pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while decoder.child_pid is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(ask(decoder, file(clip))) == 1


def test_the_child_is_replaced_after_its_share_of_videos(clip: Path) -> None:
    with Decoder(max_videos_per_child=3) as decoder:
        for _ in range(7):
            ask(decoder, file(clip))
        assert decoder.children_started == 3


def test_a_child_whose_memory_grows_is_replaced(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before it has had so many videos that one large one cannot be what makes it grow."""
    held = iter([50, 150, 179, 50, 178, 178])  # after the first video, and from the third on
    monkeypatch.setattr(child_process, "LEAK_SHOWS_AFTER_VIDEOS", 3)
    monkeypatch.setattr(child_process.ChildProcess, "resident_bytes", lambda child: next(held) << 20)
    with Decoder() as decoder:
        children = []
        for _ in range(9):
            ask(decoder, file(clip))
            children.append(decoder.children_started)
    assert children == [1, 1, 1, 1, 2, 2, 2, 2, 2]


def test_where_memory_is_not_told_a_child_is_replaced_early(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "LEAK_SHOWS_AFTER_VIDEOS", 2)
    monkeypatch.setattr(child_process.ChildProcess, "resident_bytes", lambda child: 0)
    with Decoder() as decoder:
        for _ in range(3):
            ask(decoder, file(clip))
        assert decoder.children_started == 2


def test_unread_anchors_do_not_leak_into_the_next_video(clip: Path, tmp_path: Path) -> None:
    other = file(write_video(tmp_path / "other.mp4", 9))
    with Decoder() as decoder:
        decoded = decoder.windows(file(clip), range(6), settings())
        next(decoded.anchors)
        (anchor,) = ask(decoder, other)
        assert anchor.window.video_id == "other"
        with pytest.raises(RuntimeError, match="before the decoder's next call"):
            next(decoded.anchors)


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    hanging(tmp_path / "pipes")
    script = (
        "import sys, threading, time\nfrom pathlib import Path\n"
        "from pipeline.video.decoder import Decoder\nfrom pipeline.video.datasets import Video\n"
        "from shards.schema import Settings\n"
        "decoder = Decoder()\n"
        "def tell():\n    while decoder.child_pid is None: time.sleep(0.01)\n    time.sleep(0.3); print(decoder.child_pid, flush=True)\n"
        "threading.Thread(target=tell).start()\n"
        "decoder.windows(Video('h', Path(sys.argv[1]), 'frames', 24.0), [0], Settings('folder', {}), deadline_s=60)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "pipes")], stdout=subprocess.PIPE, text=True, env=env
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.is_running()
    parent.kill()
    parent.communicate()
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_memory_stays_flat(clip: Path) -> None:
    with Decoder(max_videos_per_child=10_000) as decoder:
        resident: list[int] = []
        for number in range(160):
            ask(decoder, file(clip), image_size=224, flow_size=112)
            if number % 40 == 39:
                assert decoder.child_pid is not None
                resident.append(psutil.Process(decoder.child_pid).memory_info().rss)
                assert sys.platform != "linux" or (decoder._child and decoder._child.resident_bytes() == resident[-1])
        assert decoder.children_started == 1
        assert resident[-1] - resident[0] < 8 * 2**20, resident


def test_the_child_does_without_what_only_shards_need() -> None:
    """Arrow would double what starting one takes, and a hundred MiB of address space each."""
    loaded = "import pipeline.video.child, sys; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], cwd=ROOT).returncode == 0


def test_what_the_decoder_says_needs_no_disk(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage is known from FFmpeg's words alone: on a disk that is full they would be lost, and made-up pictures be taken."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with Decoder() as decoder:
        assert len(ask(decoder, file(clip))) == 1

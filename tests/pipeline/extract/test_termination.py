"""What ends a run: signals before and while it works, streams that are closed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.extract.termination import terminated_like_interrupted
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import digests, make_videos, request

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_an_interrupt_and_what_was_set_comes_back(number: signal.Signals) -> None:
    before = signal.signal(number, lambda *_: None)
    mine = signal.getsignal(number)
    try:
        with pytest.raises(KeyboardInterrupt), terminated_like_interrupted():
            signal.raise_signal(number)
        assert signal.getsignal(number) is mine
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminated_like_interrupted():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_while_modules_are_loaded_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline", "extract"],
        cwd=ROOT,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stderr) == (130, "")


def test_a_run_without_standard_streams_makes_the_same_set(tmp_path: Path) -> None:
    """Frames had gone to the decoder's null device, and every flow of the set was still, without a word."""
    videos = make_videos(tmp_path / "videos", 2)
    run_here(request(videos, tmp_path / "straight"))
    sizes = ["--image-size", "64", "--flow-size", "32", "--chunk-videos", "2", "--passes", "2", "--workers", "1"]
    places = ["--dataset", "folder", "--root", str(videos), "--out", str(tmp_path / "set")]
    command = [sys.executable, "-m", "pipeline", "extract", *places, *sizes]
    ended = subprocess.run(["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', *command], cwd=ROOT)
    assert ended.returncode == 0 and digests(tmp_path / "set") == digests(tmp_path / "straight")


def test_a_run_that_nobody_listens_to_ends_as_its_outcome_says(tmp_path: Path) -> None:
    """Words that are lost had been taken for a full disk, or for a failure of the run."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"")
    places = ["--dataset", "folder", "--root", str(tmp_path / "videos"), "--out", str(tmp_path / "set")]
    command = [sys.executable, "-m", "pipeline", "extract", *places, "--workers", "1"]
    shell = ["sh", "-c", '{ "$0" "$@" 2>/dev/full; echo $? >&2; } | true', *command]
    assert subprocess.run(shell, cwd=ROOT, capture_output=True, text=True).stderr == "3\n"
    assert (tmp_path / "set" / "manifest.json").is_file()
    full = subprocess.run(["sh", "-c", 'exec "$0" "$@" >/dev/full', *command], cwd=ROOT, capture_output=True, text=True)
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1] == (
        "Error: standard output takes no more: No space left on device; the run has come to its end, and what it made is in "
        f"{tmp_path / 'set'}"
    )

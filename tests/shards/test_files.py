"""The atomic writer: all of a file or none of it, and nothing left behind for long."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import pytest

from shards.files import LEFTOVER_AGE_S, atomic_path, write_atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("keep_suffix", [False, True])
def test_the_name_appears_when_the_file_is_whole(keep_suffix: bool, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "clip.mp4"
    with atomic_path(target, keep_suffix=keep_suffix) as temporary:
        assert temporary.name.startswith(".clip.mp4.") and temporary.name.endswith(".mp4") == keep_suffix
        temporary.write_bytes(b"half")
        assert not target.exists()
    assert target.read_bytes() == b"half" and names(target.parent) == ["clip.mp4"]


@pytest.mark.parametrize("keep_suffix", [False, True])
@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()])
def test_a_writer_that_fails_leaves_the_old_file(keep_suffix: bool, error: BaseException, tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    write_atomic(target, "old")
    with pytest.raises(type(error)), atomic_path(target, keep_suffix=keep_suffix) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert target.read_text() == "old" and names(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize("leftover", [".clip.mp4.1.tmp", ".clip.mp4.1.tmp.mp4"])
def test_what_killed_writers_left_goes_after_a_while(leftover: str, tmp_path: Path) -> None:
    (tmp_path / leftover).write_bytes(b"half")
    write_atomic(tmp_path / "clip.mp4", b"whole")
    assert leftover in names(tmp_path), "another writer may be at it"
    long_ago = time.time() - LEFTOVER_AGE_S - 60
    os.utime(tmp_path / leftover, (long_ago, long_ago))
    write_atomic(tmp_path / "clip.mp4", b"whole")
    assert names(tmp_path) == ["clip.mp4"]


def test_a_disk_that_fills_up_while_syncing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.md"
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space.*report\.md"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and names(tmp_path) == ["report.md"]


def test_threads_may_write_one_file_at_once(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as mine:
        names_seen: list[Path] = []

        def other() -> None:
            with atomic_path(tmp_path / "a") as theirs:
                names_seen.append(theirs)
                theirs.write_text("theirs")

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        mine.write_text("mine")
    assert names_seen != [mine] and (tmp_path / "a").read_text() == "mine"


def test_a_temporary_file_that_another_writer_has_just_renamed_is_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / ".target.1-1.tmp"
    monkeypatch.setattr(Path, "glob", lambda *_: iter([gone]))
    write_atomic(tmp_path / "target", "whole")
    assert (tmp_path / "target").read_text() == "whole"


def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    """`inspect --out /dev/null` of the superuser had put a picture in its place."""
    os.mkfifo(tmp_path / "device")
    with pytest.raises(FileExistsError, match="Not a regular file; give another name"):
        write_atomic(tmp_path / "device", b"content")
    assert stat.S_ISFIFO((tmp_path / "device").stat().st_mode) and os.listdir(tmp_path) == ["device"]

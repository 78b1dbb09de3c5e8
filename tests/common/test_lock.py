"""The lock that processes wait for. What a download makes of it is in test_download.py."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from common.lock import only_process


@pytest.mark.parametrize("made_again", [False, True])
def test_a_lock_file_that_its_holder_has_just_removed_is_no_lock(
    made_again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened before the holder removed it, locked afterwards: a third process would lock the new file beside us."""
    lock = tmp_path / "file.lock"
    calls: list[int] = []

    def late(handle: int, how: int, real: object = fcntl.flock) -> None:
        if not calls:
            lock.rename(tmp_path / "old")
            if made_again:
                lock.touch()
        calls.append(how)
        assert callable(real)
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with only_process(tmp_path / "file", growing=tmp_path / "file.part", wait_s=5):
        assert len(calls) == 2 and lock.exists()
    assert not lock.exists()

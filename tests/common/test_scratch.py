"""Folders for what is on its way: removed at the end, by the next process after a kill, and never while somebody uses them."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.command import PlainError
from common.scratch import scratch_folder, scratch_home


def test_it_is_there_inside_and_gone_afterwards_with_what_killed_processes_left(tmp_path: Path) -> None:
    home = scratch_home(tmp_path, "videos")
    killed, other = tmp_path / "videos-1", tmp_path / "sets-1"
    for folder in (killed, other):
        folder.mkdir()
        (folder / "file").touch()
    with pytest.raises(KeyError), scratch_folder(home):
        assert home.is_dir() and not killed.exists()
        (home / "file").touch()
        with pytest.raises(PlainError, match="already at work"), scratch_folder(home):
            pass
        assert (home / "file").exists(), "what is in use is left alone"
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["sets-1"]

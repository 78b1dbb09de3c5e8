"""The record is the commit: none may be seen before every shard of its chunk is in place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shards import schema
from shards.writer import ChunkWriter, committed
from tests.shards.small_set import SETTINGS, encoded

PASSES = 3


def chunk(root: Path) -> ChunkWriter:
    writer = ChunkWriter(root, SETTINGS, 0, range(PASSES))
    for pass_index in range(PASSES):
        writer.add(pass_index, 0, encoded(0, pass_index, 0))
    return writer


def test_every_shard_is_renamed_before_the_first_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed: list[str] = []
    rename = os.replace

    def note(source: Path, target: Path) -> None:
        rename(source, target)
        renamed.append(Path(target).relative_to(tmp_path).as_posix())

    monkeypatch.setattr(os, "replace", note)
    chunk(tmp_path).commit([])
    in_place = [name for name in renamed if not name.startswith(".tmp/")]
    shards = [schema.shard_path(0, p) for p in range(PASSES)]
    assert in_place == [*shards, "records/videos/000000.json"] + [schema.record_path(0, p) for p in range(PASSES)]


@pytest.mark.parametrize("renames", range(PASSES))
def test_a_crash_between_two_shards_commits_no_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    """Passes of a chunk land together, so that a video has all of its passes or none."""
    rename, done = os.replace, 0

    def crash(source: Path, target: Path) -> None:
        nonlocal done
        if Path(target).suffix == ".tar":
            if done == renames:
                raise InterruptedError
            done += 1
        rename(source, target)

    monkeypatch.setattr(os, "replace", crash)
    writer = chunk(tmp_path)
    with pytest.raises(InterruptedError):
        writer.commit([])
    assert committed(tmp_path) == set()

"""What verify says names a way out that works, and no damaged file keeps it from looking at the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shards import schema
from shards.schema import ShardSetError, read_manifest
from shards.verify import verify
from tests.shards.small_set import write_set


def test_a_damaged_table_of_videos_does_not_hide_a_damaged_shard(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    os.truncate(root / schema.VIDEOS, 100)
    shard = root / schema.shard_path(1, 0)
    content = bytearray(shard.read_bytes())
    content[1500] ^= 1
    shard.write_bytes(content)
    found = {problem.where: problem.what for problem in verify(root, deep=True)}
    assert schema.VIDEOS in found and found[schema.shard_path(1, 0)].endswith(
        "differs from the manifest; delete records/pass-00/000001.parquet and rerun the extraction command to make it again"
    )


def test_a_damaged_plan_is_found_and_all_else_is_still_looked_at(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    (root / schema.PLAN).write_text("{")
    (problem,) = verify(root, deep=True)
    assert problem.where == schema.PLAN and problem.what.startswith("damaged (")
    assert "extraction cannot continue it; restore the file" in problem.what


def test_a_damaged_account_of_videos_is_found_and_its_way_out_works(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    account = root / "records" / "videos" / "000001.json"
    os.truncate(account, account.stat().st_size // 2)
    (problem,) = verify(root)
    assert problem.where == "records/videos/000001.json"
    assert problem.what.startswith("damaged (") and problem.what.endswith(
        "; delete the chunk's records (records/pass-*/000001.parquet) and rerun the extraction command to make it again"
    )
    account.write_text("[" * 100_000)
    assert len(verify(root)) == 1


def test_a_shard_that_is_gone_names_the_command(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    (root / schema.shard_path(0, 1)).unlink()
    assert [problem.what for problem in verify(root)] == ["missing; rerun the extraction command to make it again"]


def test_a_shard_that_was_cut_short_needs_no_more_than_a_rerun(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    shard = root / schema.shard_path(0, 1)
    whole = shard.stat().st_size
    os.truncate(shard, 3000)
    assert f"3000 of {whole} bytes; rerun the extraction command to make it again" in [
        problem.what for problem in verify(root)
    ]


def test_a_manifest_of_a_hundred_thousand_brackets_is_no_traceback(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    (root / schema.MANIFEST).write_text("[" * 100_000)
    with pytest.raises(ShardSetError, match="is not readable JSON"):
        read_manifest(root)

"""Commit records: which shards have landed, and what is known of them.

`records/pass-PP/CCCCCC.parquet` is written by `shards.writer` after its shard; a shard without a record does not exist. A record whose
shard has gone counts as not landed, so that the next run makes the shard again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards import schema
from shards.schema import ShardSetError


def recorded(root: Path) -> set[tuple[int, int]]:
    """(chunk, pass) of every record, whether or not its shard is still there."""
    return {(int(p.stem), int(p.parent.name[5:])) for p in (root / schema.RECORDS).glob("pass-*/*.parquet")}


def committed(root: Path) -> set[tuple[int, int]]:
    """(chunk, pass) of every shard that has landed and is there."""
    found = {p.relative_to(root).as_posix() for p in root.glob("pass-*/*.tar")}
    return {place for place in recorded(root) if schema.shard_path(*place) in found}


def drop_passes(root: Path, passes: int) -> int:
    """Remove every shard from pass number `passes` on, its record first; returns how many."""
    beyond = [(chunk, pass_index) for chunk, pass_index in recorded(root) if pass_index >= passes]
    for chunk, pass_index in beyond:
        (root / schema.record_path(chunk, pass_index)).unlink()
        (root / schema.shard_path(chunk, pass_index)).unlink(missing_ok=True)
    return len(beyond)


def read_record(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    try:
        table = pq.read_table(path)
        return table, json.loads(table.schema.metadata[b"flowfeat"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise ShardSetError(
            f"commit record {path} is damaged ({error}); delete it and rerun to redo its shard"
        ) from error

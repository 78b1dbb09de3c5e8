"""Commit records: which shards have landed, and what is known of them.

`records/pass-PP/CCCCCC.parquet` is written by `shards.writer` after its shard; a shard without a record does not exist. A record whose
shard has gone, or has another size, counts as not landed, so that the next run makes the shard again. `records/videos/CCCCCC.json` says
what became of the videos of a chunk, once for all its passes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards import schema
from shards.files import write_atomic
from shards.schema import ShardSetError


def recorded(root: Path) -> set[tuple[int, int]]:
    """(chunk, pass) of every record, whether or not its shard is still there."""
    return set(_places(root / schema.RECORDS, ".parquet"))


def any_recorded(root: Path) -> bool:
    """Whether there is a record; looks no further than the first."""
    return any(_is_number(path.stem, 6) for path in (root / schema.RECORDS).glob("pass-*/*.parquet"))


def committed(root: Path) -> set[tuple[int, int]]:
    """(chunk, pass) of every shard that has landed and is there, all of it: of the size that the manifest says, or else its record, which
    knows better where a shard has been made again since."""
    shards, known = _places(root, ".tar"), _sizes_in_manifest(root)
    there = {place: os.stat(shards[place]).st_size for place in recorded(root) & shards.keys()}
    return {place for place, size in there.items() if known.get(place) == size or _recorded_bytes(root, place) == size}


def _sizes_in_manifest(root: Path) -> dict[tuple[int, int], int]:
    """Bytes of each shard; nothing where there is no manifest that can be read: the records say it as well, and take longer."""
    try:
        return {schema.shard_place(info.path): info.bytes for info in schema.read_manifest(root).shards}
    except (ShardSetError, OSError):
        return {}


def _recorded_bytes(root: Path, place: tuple[int, int]) -> int:
    """Of a shard, as its record says. Raises ShardSetError for a record that is damaged."""
    path = root / schema.record_path(*place)
    with _naming_damage(path):
        return _bytes_in(path, os.stat(path).st_mtime_ns)


@lru_cache(1 << 16)  # a run asks several times, and 0.4 ms of each of 9,400 records adds up
def _bytes_in(path: Path, mtime_ns: int) -> int:
    """mtime_ns: of the record, which may be replaced."""
    return int(json.loads(pq.read_metadata(path).metadata[b"flowfeat"])["shard"]["bytes"])


def _places(home: Path, ending: str) -> dict[tuple[int, int], str]:
    """(chunk, pass) of the files home/pass-PP/CCCCCC with that ending, and their paths."""
    found = {}
    for folder in filter(Path.is_dir, home.glob("pass-*")):
        if not _is_number(folder.name[5:], 2):
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name.removesuffix(ending)
                if entry.name.endswith(ending) and _is_number(name, 6) and entry.is_file():
                    found[int(name), int(folder.name[5:])] = entry.path
    return found


def _is_number(name: str, digits: int) -> bool:
    """As the paths of `schema` have it; else it is none of ours: "000000 (1)", which copying twice makes, or the "._000000" of a Mac."""
    return name.isascii() and name.isdecimal() and f"{int(name):0{digits}d}" == name


def _has_record(root: Path, chunk: int) -> bool:
    """Asked of every commit, so it looks at the chunk's own records alone."""
    name = Path(schema.record_path(chunk, 0)).name
    return any((folder / name).exists() for folder in (root / schema.RECORDS).glob("pass-*"))


def drop_passes(root: Path, passes: int) -> int:
    """Remove every shard from pass number `passes` on, its record first; returns how many."""
    beyond = [(chunk, pass_index) for chunk, pass_index in recorded(root) if pass_index >= passes]
    for chunk, pass_index in beyond:
        (root / schema.record_path(chunk, pass_index)).unlink()
        (root / schema.shard_path(chunk, pass_index)).unlink(missing_ok=True)
    return len(beyond)


def read_record(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    with _naming_damage(path):
        # In one piece: Arrow's files and read-ahead cost a fifth of reading something so small.
        with pq.ParquetFile(pa.BufferReader(path.read_bytes()), pre_buffer=False) as file:
            table = file.read(use_threads=False)
        return table, json.loads(table.schema.metadata[b"flowfeat"])


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise ShardSetError(
            f"commit record {path} is damaged ({error}); delete it and rerun to redo its shard"
        ) from error


def write_videos(root: Path, chunk: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Say what became of the videos of a chunk, beside what earlier passes said. Before the first record of the commit."""
    merged: dict[str, dict[str, Any]] = {}
    if _has_record(root, chunk):  # else the file, if there is one, is from a run that was killed
        for earlier in read_videos(root, chunk):
            merge_video(merged, earlier)
    for row in rows:
        merge_video(merged, row)
    write_atomic(videos_path(root, chunk), json.dumps(list(merged.values()), sort_keys=True) + "\n")


def read_videos(root: Path, chunk: int) -> list[dict[str, Any]]:
    """What `write_videos` said; nothing of chunks from before there was such a file, whose records say it."""
    path = videos_path(root, chunk)
    try:
        return video_rows(path.read_bytes()) if path.is_file() else []
    except (OSError, ValueError) as error:
        raise ShardSetError(f"{path} is damaged ({error}); {redo_chunk(chunk)}") from error


def video_rows(content: bytes) -> list[dict[str, Any]]:
    """Of such a file. Raises ValueError for one that is damaged."""
    try:
        rows: list[dict[str, Any]] = json.loads(content)
        if not all(isinstance(row, dict) and {"video", "status"} <= row.keys() for row in rows):
            raise ValueError("rows without a video or its status")
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return rows


def redo_chunk(chunk: int) -> str:
    """The way out where it is not known what became of a chunk's videos. Nothing of other chunks changes."""
    return f"delete the chunk's records ({schema.RECORDS}/pass-*/{chunk:06d}.parquet) and rerun the extraction command to make it again"


def merge_video(found: dict[str, dict[str, Any]], row: Mapping[str, Any]) -> None:
    """A video is ok when any pass took it."""
    seen = found.get(row["video"])
    if seen is None or (seen["status"] == schema.REJECTED and row["status"] == schema.OK):
        found[row["video"]] = dict(row)


def videos_path(root: Path, chunk: int) -> Path:
    return root / schema.RECORDS / "videos" / f"{chunk:06d}.json"

"""A shard set → the list of everything wrong with it.

Hashes every file against the manifest; where a shard differs, walks its members to say which samples are
damaged. `deep` also decodes every member and recomputes its statistics, which finds a writer's mistake that
hashing cannot.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from shards import schema
from shards.counting import counted
from shards.files import sha256_of
from shards.index import check_table
from shards.reader import ShardSet, read_table
from shards.records import redo_chunk, video_rows
from shards.schema import Manifest, ShardInfo, ShardSetError, read_manifest
from shards.set_files import SetFiles, set_files
from shards.storage import StorageError, is_url
from shards.verify_samples import Checking, Problem

_VIDEOS_OF_CHUNK = re.compile(rf"{schema.RECORDS}/videos/\d{{6}}\.json")


def verify(
    root: Path | str, *, deep: bool = False, jobs: int = 1, progress: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """Everything wrong with the set at root, a folder or an address; empty means that every byte is as it was written.

    deep: decode all members as well, in so many processes (one at an address, where each shard is fetched in turn). progress(done, total)
    is called per shard, and where samples are looked into from 1 on again. Raises ShardSetError only when there is no manifest to check
    against or a process was killed, StorageError where remote storage does not answer.
    """
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; it must be at least 1")
    manifest = read_manifest(root)
    with set_files(root) as files:
        return _verify(root, files, manifest, deep, jobs, progress)


def _verify(
    root: Path | str,
    files: SetFiles,
    manifest: Manifest,
    deep: bool,
    jobs: int,
    progress: Callable[[int, int], None] | None,
) -> list[Problem]:
    problems: list[Problem] = []
    if not manifest.complete:
        want = manifest.chunks * manifest.passes
        problems.append(
            Problem(
                schema.MANIFEST,
                f"{len(manifest.shards)} of {counted(want, 'shard')}: rerun the extraction command to finish",
            )
        )
    for name in (schema.INDEX, schema.VIDEOS):
        try:
            check_table(root, name, manifest)
        except ShardSetError as error:
            problems.append(Problem(name, str(error)))
    damaged, gone = set(), False
    for done, info in enumerate(manifest.shards, 1):
        size = files.size(info.path)
        if size is None:
            problems.append(Problem(info.path, "missing; rerun the extraction command to make it again"))
            gone = True
        elif (what := _differs(files, info, size)) is not None:
            problems.append(Problem(info.path, what))
            damaged.add(info.path)
        if progress:
            progress(done, len(manifest.shards))
    names = set(files.names())
    problems += _stray_shards(names, manifest) + _records(files, names)
    tables = {p.where for p in problems}
    sizes_ok = all(files.size(info.path) == info.bytes for info in manifest.shards)
    if schema.INDEX not in tables and not gone and sizes_ok:
        try:
            data = ShardSet(root, allow_partial=True)
        except ShardSetError as error:
            return [*problems, Problem(schema.INDEX, str(error))]
        if schema.VIDEOS not in tables:
            problems += _verify_videos(root, data)
        if deep or damaged:
            rows = {shard: rows for shard, rows in data.rows_by_shard().items() if deep or shard in damaged}
            checking = Checking(data, files, rows, tars=deep)
            problems += checking.problems(1 if is_url(root) else jobs, progress)
    return problems


def _differs(files: SetFiles, info: ShardInfo, size: int) -> str | None:
    """How a shard is not what the manifest says. A disk that does not give it back is why one verifies, and no reason to stop."""
    try:
        if size == info.bytes and sha256_of(files.path(info.path)) == info.sha256:
            return None
    except StorageError:
        raise
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if size != info.bytes:  # which a rerun sees
        return f"{size} of {info.bytes} bytes; rerun the extraction command to make it again"
    record = schema.record_path(*schema.shard_place(info.path))
    return f"SHA-256 differs from the manifest; delete {record} and rerun the extraction command to make it again"


def _records(files: SetFiles, names: Collection[str]) -> list[Problem]:
    """Of a set that can be continued: a copy without records is whole as well, and cannot."""
    if not any(fnmatch(name, f"{schema.RECORDS}/pass-*/*.parquet") for name in names):
        return []
    problems = [_damaged_videos(files, name) for name in sorted(names) if _VIDEOS_OF_CHUNK.fullmatch(name)]
    if schema.PLAN not in names:
        what = "missing: the set can be read, but extraction cannot continue it; restore the file"
        return [Problem(schema.PLAN, what), *filter(None, problems)]
    try:
        json.loads(files.path(schema.PLAN).read_bytes())
    except (ValueError, RecursionError) as error:
        what = f"damaged ({error}): the set can be read, but extraction cannot continue it; restore the file"
        return [Problem(schema.PLAN, what), *filter(None, problems)]
    return [*filter(None, problems)]


def _damaged_videos(files: SetFiles, name: str) -> Problem | None:
    """Whether a file that says what became of a chunk's videos can be read; tables are made from it when more lands."""
    try:
        video_rows(files.path(name).read_bytes())
    except StorageError:
        raise
    except (OSError, ValueError) as error:
        return Problem(name, f"damaged ({error}); {redo_chunk(int(name[-11:-5]))}")
    return None


def _verify_videos(root: Path | str, data: ShardSet) -> list[Problem]:
    """Every sample lies where its video does, and every video once: else shards of two plans have been mixed."""
    table = read_table(root, schema.VIDEOS, data.manifest)
    if any(name not in table.column_names for name in ("video", "chunk", "position", "anchors")):
        return [
            Problem(
                schema.VIDEOS, f"lacks columns; format {schema.VERSION} has {', '.join(schema.VIDEOS_SCHEMA.names)}"
            )
        ]
    names, chunks, positions, anchors = (
        table.column(name).to_pylist() for name in ("video", "chunk", "position", "anchors")
    )
    place = {name: (chunk, position) for name, chunk, position in zip(names, chunks, positions, strict=True)}
    problems = []
    if len(place) != len(names) or len(set(place.values())) != len(names):
        problems.append(Problem(schema.VIDEOS, "lists a video, or a position of a chunk, twice"))
    chunk_of = np.array([schema.shard_place(shard)[0] for shard in data.shards], np.int64)
    wanted = np.array([place.get(name, (-1, -1)) for name in data.video.distinct.to_pylist()], np.int64).reshape(-1, 2)
    found = (
        np.stack([chunk_of[data.shard_codes], data.keys.position], axis=1) if len(data) else np.zeros((0, 2), np.int64)
    )
    wrong = (found != wanted[data.video.codes]).any(axis=1)
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        samples = counted(int(wrong.sum()), "sample is", "samples are")
        what = f"{samples} not where {schema.VIDEOS} has their video, first {data.keys[i]} of {data.video[i]!r}"
        problems.append(Problem(schema.INDEX, f"{what}: shards of two plans are mixed; start a new set"))
    elif sum(anchors) != len(data):
        problems.append(
            Problem(schema.VIDEOS, f"counts {counted(sum(anchors), 'sample')}, {schema.INDEX} has {len(data)}")
        )
    return problems


def _stray_shards(names: Collection[str], manifest: Manifest) -> list[Problem]:
    known = {info.path for info in manifest.shards}
    found = {name for name in names if fnmatch(name, "pass-*/*.tar") and name.count("/") == 1}
    return [Problem(path, f"not in the manifest: {_why_stray(path)}") for path in sorted(found - known)]


def _why_stray(path: str) -> str:
    try:
        schema.shard_place(path)
    except ValueError:
        return "no shard has such a name; move it out of the set"
    return "an interrupted run left it; rerun the extraction command"

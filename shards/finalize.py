"""All commit records of a set → index.parquet, videos.parquet, manifest.json. Equal records give equal bytes.

Records are read one after the other, each once, and their rows are written as soon as a row group is full: what is held is bounded by
that and by the number of videos. A set that is whole, and whose records are older than its manifest, is left as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards import schema
from shards.files import atomic_path, sha256_of, write_atomic
from shards.index import read_table
from shards.records import committed, merge_video, read_record, read_videos
from shards.schema import Manifest, Settings, ShardInfo, ShardSetError

GROUP_ROWS = 1 << 20
"""Rows of a row group of index.parquet."""


def finalize(root: Path, settings: Settings, chunks: int, passes: int, plan: Iterable[Mapping[str, Any]]) -> Manifest:
    """Merge all commit records into index.parquet, videos.parquet and manifest.json.

    plan: (video, path, chunk, position) of every video of the set, landed or not. `complete` in the manifest says
    whether every chunk has every pass. Raises ShardSetError when a record cannot be read.
    """
    plan = list(plan)
    wanted = {(chunk, pass_index) for chunk, pass_index in committed(root) if chunk < chunks and pass_index < passes}
    landed = sorted(wanted, key=lambda cp: (cp[1], cp[0]))
    known = _unchanged(root, settings, chunks, passes, landed, plan)
    if known is not None:
        return known
    outcome: dict[int, dict[str, dict[str, Any]]] = {}
    for chunk in sorted({chunk for chunk, _ in landed}):
        outcome[chunk] = {row["video"]: {**row, "anchors": 0} for row in read_videos(root, chunk)}
    infos: list[ShardInfo] = []
    pairs = Counter[str]()
    anchors = Counter[tuple[int, str]]()

    def tables() -> Iterator[pa.Table]:
        for chunk, pass_index in landed:
            table, note = read_record(root / schema.record_path(chunk, pass_index))
            infos.append(ShardInfo(**note["shard"]))
            for row in note.get("videos", ()):  # records of earlier versions repeat them in every pass
                merge_video(outcome[chunk], {"anchors": 0, **row})
            anchors.update((chunk, video) for video in table.column("video").to_pylist())
            for counted in pc.value_counts(table.column("status").combine_chunks().flatten()).to_pylist():
                pairs[counted["values"]] += counted["counts"]
            yield table.replace_schema_metadata(None)

    index = _write(root / schema.INDEX, lambda path: _write_index(path, tables(), len(settings.offsets)))
    for (chunk, video), count in anchors.items():
        if video in outcome[chunk]:
            outcome[chunk][video]["anchors"] = count
    videos = _video_rows(outcome, plan)
    table = pa.Table.from_pylist(videos, schema=schema.VIDEOS_SCHEMA)
    files = {schema.INDEX: index, schema.VIDEOS: _write(root / schema.VIDEOS, lambda path: _write_whole(path, table))}
    manifest = Manifest(
        settings=settings,
        complete=len(landed) == chunks * passes,
        passes=passes,
        chunks=chunks,
        counts=_counts(videos, index["rows"], pairs, cuts=bool(settings.cut_detector)),
        shards=infos,
        files=files,
    )
    write_atomic(root / schema.MANIFEST, manifest.to_bytes())
    return manifest


def _unchanged(
    root: Path,
    settings: Settings,
    chunks: int,
    passes: int,
    landed: Sequence[tuple[int, int]],
    plan: Sequence[Mapping[str, Any]],
) -> Manifest | None:
    """The manifest of a whole set that has not changed since, its files compared with it; None where there is anything to do."""
    try:
        manifest = schema.read_manifest(root)
        written = (root / schema.MANIFEST).stat().st_mtime_ns
        as_landed = [info.path for info in manifest.shards] == [schema.shard_path(*place) for place in landed]
        asked = (settings, True, passes, chunks)
        if not as_landed or (manifest.settings, manifest.complete, manifest.passes, manifest.chunks) != asked:
            return None
        for place in landed:
            status = (root / schema.record_path(*place)).stat()
            if max(status.st_mtime_ns, status.st_ctime_ns) >= written:
                return None
        if sha256_of(root / schema.INDEX) != manifest.files[schema.INDEX]["sha256"]:
            return None
        names = ("video", "path", "chunk", "position")
        columns = (read_table(root, schema.VIDEOS, manifest).column(name).to_pylist() for name in names)
        last = {planned["video"]: tuple(planned[name] for name in names) for planned in plan}
        return manifest if set(zip(*columns, strict=True)) == set(last.values()) else None
    except (ShardSetError, OSError, KeyError):
        return None  # whatever cannot be read is made anew


def _write_index(path: Path, tables: Iterable[pa.Table], width: int) -> int:
    """Rows in groups of GROUP_ROWS, to the bytes that writing all tables at once would give; returns how many."""
    stream = iter(tables)
    held = [next(stream, schema.index_schema(width).empty_table())]
    done, rows = 0, held[0].num_rows
    with pq.ParquetWriter(
        path, held[0].schema
    ) as writer:  # as it was read: the names inside of lists are part of the bytes
        for table in stream:
            held.append(table)
            rows += table.num_rows
            while rows > GROUP_ROWS:
                whole = pa.concat_tables(held)
                writer.write_table(whole.slice(0, GROUP_ROWS), row_group_size=GROUP_ROWS)
                held, done, rows = [whole.slice(GROUP_ROWS)], done + GROUP_ROWS, rows - GROUP_ROWS
        writer.write_table(pa.concat_tables(held), row_group_size=GROUP_ROWS)
    return done + rows


def _write_whole(path: Path, table: pa.Table) -> int:
    pq.write_table(table, path)
    return int(table.num_rows)


def _write(path: Path, write: Callable[[Path], int]) -> dict[str, Any]:
    """What the manifest says of a file. write: fills the path that it is given, and returns its rows."""
    with atomic_path(path) as temporary:
        rows = write(temporary)
        return {"bytes": temporary.stat().st_size, "sha256": sha256_of(temporary), "rows": rows}


def _video_rows(
    outcome: Mapping[int, Mapping[str, Mapping[str, Any]]], plan: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One row per video that has landed, in the plan's order; of a video that was tried again the latest place that has."""
    rows: dict[str, dict[str, Any]] = {}
    for planned in plan:
        found = outcome.get(planned["chunk"], {}).get(planned["video"])
        if found is not None:
            rows.pop(planned["video"], None)
            rows[planned["video"]] = {**planned, **found}
    return list(rows.values())


def _counts(
    videos: Sequence[Mapping[str, Any]], samples: int, pairs: Mapping[str, int], *, cuts: bool = False
) -> dict[str, Any]:
    """cuts: whether cuts were looked for, so that the anchors they took are counted; not where a record is from before they were noted."""
    rejected: dict[str, int] = {}
    for video in videos:
        if video["status"] == schema.REJECTED:
            rejected[video["reason"]] = rejected.get(video["reason"], 0) + 1
    ok = len(videos) - sum(rejected.values())
    by_status = {status: pairs.get(status, 0) for status in schema.PAIR_STATUS}
    counts = {"videos": len(videos), "ok": ok, "rejected": rejected, "samples": samples, "pairs": by_status}
    taken = [video for video in videos if video["status"] == schema.OK]
    if cuts and all("across_cuts" in video for video in taken):
        counts["across_cuts"] = sum(video["across_cuts"] for video in taken)
    return counts

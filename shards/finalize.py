"""All commit records of a set → index.parquet, videos.parquet, manifest.json. Equal records give equal bytes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards import schema
from shards.files import write_atomic
from shards.records import committed, read_record
from shards.schema import Manifest, Settings, ShardInfo


def finalize(root: Path, settings: Settings, chunks: int, passes: int, plan: Iterable[Mapping[str, Any]]) -> Manifest:
    """Merge all commit records into index.parquet, videos.parquet and manifest.json.

    plan: (video, path, chunk, position) of every video of the set, landed or not. `complete` in the manifest says
    whether every chunk has every pass. Raises ShardSetError when a record cannot be read.
    """
    tables, infos = [], []
    outcome: dict[tuple[int, str], dict[str, Any]] = {}
    wanted = {(chunk, pass_index) for chunk, pass_index in committed(root) if chunk < chunks and pass_index < passes}
    landed = sorted(wanted, key=lambda cp: (cp[1], cp[0]))
    for chunk, pass_index in landed:
        table, note = read_record(root / schema.record_path(chunk, pass_index))
        tables.append(table)
        infos.append(ShardInfo(**note["shard"]))
        sampled = set(table.column("video").to_pylist())
        for video in note["videos"]:
            _merge_video(outcome, chunk, video, video["video"] in sampled)
    index = pa.concat_tables(tables) if tables else schema.index_schema(len(settings.offsets)).empty_table()
    videos = _video_rows(outcome, plan)
    files = {
        schema.INDEX: _write_table(root / schema.INDEX, index.replace_schema_metadata(None)),
        schema.VIDEOS: _write_table(root / schema.VIDEOS, pa.Table.from_pylist(videos, schema=schema.VIDEOS_SCHEMA)),
    }
    manifest = Manifest(
        settings=settings,
        complete=len(landed) == chunks * passes,
        passes=passes,
        chunks=chunks,
        counts=_counts(index, videos),
        shards=infos,
        files=files,
    )
    write_atomic(root / schema.MANIFEST, manifest.to_bytes())
    return manifest


def _merge_video(
    outcome: dict[tuple[int, str], dict[str, Any]], chunk: int, row: Mapping[str, Any], sampled: bool
) -> None:
    """A video is ok when any pass took it; `anchors` counts the passes that did."""
    place = (chunk, row["video"])
    seen = outcome.get(place)
    if seen is None or (seen["status"] == schema.REJECTED and row["status"] == schema.OK):
        seen = outcome[place] = {**row, "anchors": seen["anchors"] if seen else 0}
    seen["anchors"] += sampled


def _video_rows(
    outcome: Mapping[tuple[int, str], Mapping[str, Any]], plan: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One row per video that has landed, in the plan's order; of a video that was tried again the latest place that has."""
    rows: dict[str, dict[str, Any]] = {}
    for planned in plan:
        found = outcome.get((planned["chunk"], planned["video"]))
        if found is not None:
            rows.pop(planned["video"], None)
            rows[planned["video"]] = {**planned, **found}
    return list(rows.values())


def _write_table(path: Path, table: pa.Table) -> dict[str, Any]:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    data = buffer.getvalue()
    write_atomic(path, data)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "rows": table.num_rows}


def _counts(index: pa.Table, videos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    pairs = dict.fromkeys(schema.PAIR_STATUS, 0)
    for statuses in index.column("status").to_pylist():
        for status in statuses:
            pairs[status] += 1
    rejected: dict[str, int] = {}
    for video in videos:
        if video["status"] == schema.REJECTED:
            rejected[video["reason"]] = rejected.get(video["reason"], 0) + 1
    ok = len(videos) - sum(rejected.values())
    return {"videos": len(videos), "ok": ok, "rejected": rejected, "samples": index.num_rows, "pairs": pairs}

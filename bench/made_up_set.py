"""Sets and lists of videos of any size without a video in them: commit records of made-up samples, an index, sparse files as shards.

Used by `scale.py` and `scale_open.py`. Names, numbers and lengths are like those of Kinetics; statistics and check sums are random, since
what repeats would compress to nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.extract.plan import ChunkPlan, PlannedVideo, plan_text, save_plan
from pipeline.video.datasets import Video
from shards import schema
from shards.files import sha256_of
from shards.growing_index import write_index
from shards.records import write_videos
from shards.schema import Manifest, Settings, ShardInfo
from shards.video_table import PlannedVideos, counts

CHUNK_VIDEOS = 256
SETTINGS = Settings("folder", {"name": "none"}, chunk_videos=CHUNK_VIDEOS)
SHARD_BYTES = 1 << 12
"""Of a sparse file in a shard's place: so few that what is measured is not hashing. Members say that they lie inside."""
SHARD_SHA256 = hashlib.sha256(bytes(SHARD_BYTES)).hexdigest()
LINKS = 30_000
"""Names per file of a tree of videos: file systems allow no more than 65,000."""
FACTS = {
    "status": "ok",
    "reason": "",
    "detail": "",
    "frames": 300,
    "fps": 29.97,
    "width": 340,
    "height": 256,
    "engine": "decord",
}


def name_of(video: int) -> str:
    return f"class-{video % 400:03d}/{video:011d}_{video % 290:06d}_{video % 290 + 10:06d}"


def members_of(chunk: int, videos: int) -> range:
    return range(chunk * CHUNK_VIDEOS, min(videos, (chunk + 1) * CHUNK_VIDEOS))


def rows_of(chunks: range, pass_index: int, videos: int) -> pa.Table:
    """Index rows of one pass of some chunks of a set of so many videos."""
    places = [(chunk, position, video) for chunk in chunks for position, video in enumerate(members_of(chunk, videos))]
    n, k = len(places), len(SETTINGS.offsets)
    draw = np.random.default_rng([chunks.start, pass_index])
    index = schema.index_schema(k)
    at = draw.integers(0, SHARD_BYTES // 2, (n, 6))  # three random bytes each, as real ones have
    size = draw.integers(1, SHARD_BYTES // 2, (n, 6))
    crc = draw.integers(0, 2**32, (n, 6))
    frame = draw.integers(0, 290, n)
    columns: dict[str, object] = {
        "key": [schema.sample_key(chunk, pass_index, position) for chunk, position, _ in places],
        "pass": np.full(n, pass_index),
        "shard": [schema.shard_path(chunk, pass_index) for chunk, _, _ in places],
        "video": [name_of(video) for _, _, video in places],
        "frame": frame,
        "time_s": frame / 29.97,
        "neighbour_frame": frame[:, None] + np.array(SETTINGS.offsets),
        "neighbour_time_s": (frame[:, None] + np.array(SETTINGS.offsets)) / 29.97,
        "status": [schema.STORED] * (n * k),
        "quantum_exponent": draw.integers(-7, -3, (n, k)),
        "confidence": [None] * (n * k),
        "optional_members": [[]] * n,
    }
    for name in ("mean_dx_px", "mean_dy_px", "std_dx_px", "std_dy_px", "max_px"):
        columns[name] = draw.gamma(2.0, 2.0, (n, k)).astype(np.float32)
    for name, values in (("offset", at), ("size", size), ("crc32", crc)):
        columns |= {f"image_{name}": values[:, 0], f"json_{name}": values[:, 1], f"flow_{name}": values[:, 2:]}
    return pa.table([_column(columns[field.name], field.type) for field in index], schema=index)


def _column(values: object, kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        flat = pa.array(values.ravel() if isinstance(values, np.ndarray) else values, kind.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    return pa.array(values, kind)


def plan_of(root: Path, videos: int, passes: int) -> ChunkPlan:
    places = tuple(
        PlannedVideo(
            Video(name_of(v), root.parent / "videos" / f"{name_of(v)}.mp4", "file"),
            f"{name_of(v)}.mp4",
            v // CHUNK_VIDEOS,
            v % CHUNK_VIDEOS,
        )
        for v in range(videos)
    )
    return ChunkPlan(SETTINGS, passes, places, frozenset(v.video.id for v in places))


def write_chunk(root: Path, chunk: int, passes: Sequence[int], videos: int) -> None:
    """Passes of a chunk as a commit leaves them, the shards sparse."""
    write_videos(root, chunk, [{"video": name_of(v), **FACTS} for v in members_of(chunk, videos)])
    for pass_index in passes:
        info, entry = _shard(root, chunk, pass_index, videos), root / schema.record_path(chunk, pass_index)
        entry.parent.mkdir(parents=True, exist_ok=True)
        note = {"flowfeat": json.dumps({"shard": info.__dict__}, sort_keys=True)}
        table = rows_of(range(chunk, chunk + 1), pass_index, videos)
        pq.write_table(table.replace_schema_metadata(note), entry)


def _shard(root: Path, chunk: int, pass_index: int, videos: int) -> ShardInfo:
    shard = root / schema.shard_path(chunk, pass_index)
    shard.parent.mkdir(parents=True, exist_ok=True)
    shard.touch()
    os.truncate(shard, SHARD_BYTES)
    return ShardInfo(schema.shard_path(chunk, pass_index), len(members_of(chunk, videos)), SHARD_BYTES, SHARD_SHA256)


def write_records(root: Path, videos: int, passes: int, but_chunks: int = 0) -> ChunkPlan:
    """A set as a run leaves it that was killed before its first manifest. but_chunks: how many of the last are missing."""
    plan = plan_of(root, videos, passes)
    save_plan(root, plan_text(plan))
    for chunk in range(plan.chunks - but_chunks):
        write_chunk(root, chunk, range(passes), videos)
    return plan


def write_set(root: Path, videos: int, passes: int) -> int:
    """A whole set without records: what is read, not how it came about. Returns its number of samples."""
    plan = plan_of(root, videos, passes)
    planned = PlannedVideos(v.row() for v in plan.videos)
    places = [(chunk, pass_index) for pass_index in range(passes) for chunk in range(plan.chunks)]
    infos = [_shard(root, *place, videos) for place in places]

    def tables() -> Iterator[pa.Table]:
        for pass_index in range(passes):
            for first in range(0, plan.chunks, 64):
                yield rows_of(range(first, min(plan.chunks, first + 64)), pass_index, videos)

    rows = write_index(root / schema.INDEX, tables(), len(SETTINGS.offsets))
    facts = {v.video.id: {"video": v.video.id, **FACTS} for v in plan.videos}
    anchors = dict.fromkeys(facts, passes)
    table = planned.joined({chunk: planned.rows_of(chunk, facts, anchors) for chunk in range(plan.chunks)})
    pq.write_table(table, root / schema.VIDEOS)
    files = {
        name: {"bytes": (root / name).stat().st_size, "sha256": sha256_of(root / name), "rows": n}
        for name, n in ((schema.INDEX, rows), (schema.VIDEOS, videos))
    }
    manifest = Manifest(SETTINGS, True, passes, plan.chunks, counts(table, rows, {}), infos, files)
    (root / schema.MANIFEST).write_bytes(manifest.to_bytes())
    return rows


def write_growing(root: Path, videos: int, passes: int) -> None:
    """All of a set but its last two chunks, with a manifest that says so. Records are empty files: nobody reads those that it describes."""
    chunks = plan_of(root, videos, passes).chunks
    write_set(root, (chunks - 2) * CHUNK_VIDEOS, passes)
    for pass_index in range(passes):
        for chunk in range(chunks - 2):
            record = root / schema.record_path(chunk, pass_index)
            record.parent.mkdir(parents=True, exist_ok=True)
            record.touch()
    manifest = replace(schema.read_manifest(root), complete=False, chunks=chunks)
    (root / schema.MANIFEST).write_bytes(manifest.to_bytes())


def write_kinetics(root: Path, videos: int) -> tuple[Path, Path]:
    """A tree train/<class>/<clip>.mp4 of names of a few small files; returns a CSV as Kinetics has it and a list of paths, beside it."""
    rows, paths = ["label,youtube_id,time_start,time_end,split"], []
    source = root.parent / "clip"
    for video in range(videos):
        if video % LINKS == 0:
            source = root.parent / f"clip-{video}.mp4"
            source.write_bytes(b"no video")
        path = root / "train" / f"{name_of(video)}.mp4"
        if video < 400:
            path.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, path)
        clip, start, end = path.stem.rsplit("_", 2)
        rows.append(f"{path.parent.name},{clip},{int(start)},{int(end)},train")
        paths.append(path.relative_to(root).as_posix())
    table, listed = root.parent / "kinetics.csv", root.parent / "list.txt"
    table.write_text("\n".join(rows) + "\n")
    listed.write_text("\n".join(paths) + "\n")
    return table, listed

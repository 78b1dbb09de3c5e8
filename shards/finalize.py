"""All commit records of a set → index.parquet, videos.parquet, manifest.json. Equal records of a whole set give equal bytes.

Records are read one after the other, each once, and their rows are written as soon as a row group is full: what is held is bounded by
that and by the number of videos. A set that is whole, and whose records are older than its manifest, is left as it is. While chunks are
missing, those that have landed since the last manifest are added to what it describes: that costs what they hold, not what the set holds
(beyond a copy of the index), and leaves their samples behind all others until the set is whole and its index is written in order. That
order too is made from the index that is there and the records that are new (`shards.index_shards`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards import schema
from shards.files import atomic_path, sha256_of, write_atomic
from shards.growing_index import extend_index, packed, write_index
from shards.index import read_table
from shards.index_shards import rows_by_shard
from shards.records import committed, merge_video, read_record, read_videos, videos_path
from shards.schema import Manifest, Settings, ShardInfo, ShardSetError
from shards.video_table import PlannedVideos, PlanRow, by_chunk, counts

REBUILD_SHARE = 8
"""An index of a set that is not whole is written anew where as many shards have landed since as an eighth of those that it has."""

_COUNTED_TABLES = 64

Place = tuple[int, int]
"""Chunk and pass of a shard."""


def finalize(root: Path, settings: Settings, chunks: int, passes: int, plan: Iterable[PlanRow]) -> Manifest:
    """Merge all commit records into index.parquet, videos.parquet and manifest.json.

    plan: (video, path, chunk, position) of every video of the set, landed or not, chunk by chunk. `complete` in the manifest says
    whether every chunk has every pass. Raises ShardSetError when a record cannot be read.
    """
    planned = PlannedVideos(plan)
    wanted = {(chunk, pass_index) for chunk, pass_index in committed(root) if chunk < chunks and pass_index < passes}
    landed = sorted(wanted, key=lambda cp: (cp[1], cp[0]))
    complete = len(landed) == chunks * passes
    known = _known(root, settings, landed, planned)
    if (
        known is not None
        and complete
        and known.manifest.complete
        and len(known.infos) == len(landed)
        and known.index_stands(root)
    ):
        return known.manifest
    merged = None if known is None else (_ordered if complete else _extended)(root, known, landed, planned)
    merged = merged or _merged(root, landed, planned, len(settings.offsets))
    table = planned.joined(merged.videos)
    written = _write(root / schema.VIDEOS, lambda path: _write_whole(path, table))
    manifest = Manifest(
        settings=settings,
        complete=complete,
        passes=passes,
        chunks=chunks,
        counts=counts(table, merged.index["rows"], merged.pairs, merged.across_cuts if settings.cut_detector else None),
        shards=[merged.infos[place] for place in landed],
        files={schema.INDEX: merged.index, schema.VIDEOS: written},
    )
    write_atomic(root / schema.MANIFEST, manifest.to_bytes())
    return manifest


@dataclass(frozen=True)
class _Known:
    """A manifest that describes shards that have not changed since it was written, and the rows of its video table by chunk."""

    manifest: Manifest
    written_ns: int
    infos: Mapping[Place, ShardInfo]
    videos: Mapping[int, pa.Table]

    @property
    def index_sha256(self) -> str:
        return str(self.manifest.files[schema.INDEX]["sha256"])

    def index_stands(self, root: Path) -> bool:
        """Whether the index is the one that the manifest means."""
        path = root / schema.INDEX
        return path.is_file() and sha256_of(path) == self.index_sha256

    def noted_since(self, root: Path, but: set[int]) -> bool:
        """Whether something was said of the videos of a known chunk after the manifest was written; but: chunks that are read anyway."""
        notes = (videos_path(root, chunk) for chunk in {chunk for chunk, _ in self.infos} - but)
        return any(_changed_ns(path) >= self.written_ns for path in notes if path.exists())


@dataclass(frozen=True)
class _Merged:
    """What the manifest says. index: bytes, sha256 and rows of the file that has been written. across_cuts: anchors that were not to be
    drawn because of shot cuts; None where that was not noted of every video."""

    index: Mapping[str, Any]
    infos: Mapping[Place, ShardInfo]
    videos: Mapping[int, pa.Table]
    pairs: Mapping[str, int]
    across_cuts: int | None


def _known(root: Path, settings: Settings, landed: Sequence[Place], planned: PlannedVideos) -> _Known | None:
    """None where there is no manifest that can be trusted to describe some of the landed shards as they are now."""
    try:
        manifest = schema.read_manifest(root)
        written = (root / schema.MANIFEST).stat().st_mtime_ns
        infos = {schema.shard_place(info.path): info for info in manifest.shards}
        if manifest.settings != settings or not infos.keys() <= set(landed):
            return None
        for place in infos:
            if _changed_ns(f"{root}/{schema.record_path(*place)}") >= written:
                return None
        table = read_table(root, schema.VIDEOS, manifest)
        if table.schema != schema.VIDEOS_SCHEMA or not planned.agrees(table, {chunk for chunk, _ in infos}):
            return None
        return _Known(manifest, written, infos, by_chunk(table))
    except (ShardSetError, OSError, KeyError):
        return None  # whatever cannot be read is made anew


def _changed_ns(path: str | Path) -> int:
    status = os.stat(path)
    return max(status.st_mtime_ns, status.st_ctime_ns)


@dataclass
class _Reading:
    """Counts what goes through it. anchors: samples of a video, by chunk; older: what else is said of a chunk's videos, by
    records of earlier versions or by the table so far."""

    root: Path
    infos: dict[Place, ShardInfo] = field(default_factory=dict)
    pairs: Counter[str] = field(default_factory=Counter)
    anchors: dict[int, Counter[str]] = field(default_factory=dict)
    older: dict[int, list[Mapping[str, Any]]] = field(default_factory=dict)
    across_cuts: int | None = 0
    statuses: list[pa.Array] = field(default_factory=list)

    def tables(self, places: Sequence[Place]) -> Iterator[pa.Table]:
        for chunk, pass_index in places:
            table, note = read_record(self.root / schema.record_path(chunk, pass_index))
            self.infos[chunk, pass_index] = ShardInfo(**note["shard"])
            if "videos" in note:  # repeated in every pass
                self.older.setdefault(chunk, []).extend(note["videos"])
            self.anchors.setdefault(chunk, Counter()).update(table.column("video").to_pylist())
            self.statuses += table.column("status").chunks
            if len(self.statuses) >= _COUNTED_TABLES:
                self.counted()
            yield table.replace_schema_metadata(None)

    def counted(self) -> Counter[str]:
        """Pairs by status. Of a number of tables at once: Arrow takes as long to begin as it takes for one."""
        if self.statuses:
            for found in pc.value_counts(pc.list_flatten(pa.chunked_array(self.statuses))).to_pylist():
                self.pairs[found["values"]] += found["counts"]
            self.statuses.clear()
        return self.pairs

    def rows_of(self, chunk: int, planned: PlannedVideos) -> pa.Table:
        """What became of a chunk's videos."""
        outcome = {row["video"]: row for row in read_videos(self.root, chunk)}
        for row in self.older.get(chunk, ()):
            merge_video(outcome, row)
        taken = [row for row in outcome.values() if row["status"] == schema.OK]
        noted = self.across_cuts is not None and all("across_cuts" in row for row in taken)
        self.across_cuts = (self.across_cuts or 0) + sum(row["across_cuts"] for row in taken) if noted else None
        return planned.rows_of(chunk, outcome, self.anchors.get(chunk, {}))


def _merged(root: Path, landed: Sequence[Place], planned: PlannedVideos, width: int) -> _Merged:
    """From all records, the index in the order of the format."""
    reading = _Reading(root)
    index = _write(root / schema.INDEX, lambda path: write_index(path, packed(reading.tables(landed)), width))
    videos = {chunk: reading.rows_of(chunk, planned) for chunk in sorted({chunk for chunk, _ in landed})}
    return _Merged(index, reading.infos, videos, reading.counted(), reading.across_cuts)


def _extended(root: Path, known: _Known, landed: Sequence[Place], planned: PlannedVideos) -> _Merged | None:
    """What is known with the shards that are new; None where these are many, or the index is not the known one."""
    fresh = [place for place in landed if place not in known.infos]
    before = known.manifest.files[schema.INDEX]
    if not fresh:
        pairs, across_cuts = Counter(known.manifest.counts["pairs"]), known.manifest.counts.get("across_cuts")
        return _Merged(before, known.infos, known.videos, pairs, across_cuts) if known.index_stands(root) else None
    if len(fresh) * REBUILD_SHARE >= len(known.infos) or _cuts_unknown(known, fresh):
        return None
    reading = _Reading(root, across_cuts=known.manifest.counts.get("across_cuts"))

    try:
        with atomic_path(root / schema.INDEX) as path:
            added, digest = extend_index(path, root / schema.INDEX, known.index_sha256, packed(reading.tables(fresh)))
            index = {"bytes": path.stat().st_size, "sha256": digest, "rows": int(before["rows"]) + added}
    except (ShardSetError, FileNotFoundError):
        return None  # the index is gone, or another; a record that cannot be read is met again
    return _with_fresh(known, fresh, reading, planned, index)


def _ordered(root: Path, known: _Known, landed: Sequence[Place], planned: PlannedVideos) -> _Merged | None:
    """As `_merged` of a set that is whole, with the rows of known shards from the index that is there; None where it cannot be used."""
    fresh = [place for place in landed if place not in known.infos]
    if not known.infos or _cuts_unknown(known, fresh) or known.noted_since(root, {chunk for chunk, _ in fresh}):
        return None
    reading = _Reading(root, across_cuts=known.manifest.counts.get("across_cuts"))
    try:
        with rows_by_shard(root / schema.INDEX, known.index_sha256) as rows:

            def tables() -> Iterator[pa.Table]:
                new = packed(reading.tables(fresh))
                for place in landed:
                    if (info := known.infos.get(place)) is None:
                        yield next(new)
                        continue
                    table = rows(info.path)
                    if table.num_rows != info.samples:
                        raise ShardSetError(
                            f"{schema.INDEX} has {table.num_rows} of {info.samples} rows of {info.path}"
                        )
                    yield table

            width = len(known.manifest.settings.offsets)
            index = _write(root / schema.INDEX, lambda path: write_index(path, tables(), width))
    except (ShardSetError, OSError):
        return None  # merging records needs no index and no scratch file; what is wrong beyond these is met again
    return _with_fresh(known, fresh, reading, planned, index)


def _cuts_unknown(known: _Known, fresh: Sequence[Place]) -> bool:
    """The anchors that cuts took from videos of a chunk that was there are not known one by one."""
    return bool(known.manifest.counts.get("across_cuts")) and not known.videos.keys().isdisjoint(c for c, _ in fresh)


def _with_fresh(
    known: _Known, fresh: Sequence[Place], reading: _Reading, planned: PlannedVideos, index: Mapping[str, Any]
) -> _Merged:
    """index: of known and fresh shards; reading: of the fresh ones."""
    videos = dict(known.videos)
    for chunk in {chunk for chunk, _ in fresh}:
        if chunk in videos:  # more passes of a chunk that was there
            earlier = videos[chunk].to_pylist()
            reading.older.setdefault(chunk, []).extend(earlier)
            reading.anchors[chunk].update({row["video"]: row["anchors"] for row in earlier})
        videos[chunk] = reading.rows_of(chunk, planned)
    pairs = Counter(known.manifest.counts["pairs"]) + reading.counted()
    return _Merged(index, {**known.infos, **reading.infos}, videos, pairs, reading.across_cuts)


def _write_whole(path: Path, table: pa.Table) -> int:
    pq.write_table(table, path)
    return int(table.num_rows)


def _write(path: Path, write: Callable[[Path], int]) -> dict[str, Any]:
    """What the manifest says of a file. write: fills the path that it is given, and returns its rows."""
    with atomic_path(path) as temporary:
        rows = write(temporary)
        return {"bytes": temporary.stat().st_size, "sha256": sha256_of(temporary), "rows": rows}

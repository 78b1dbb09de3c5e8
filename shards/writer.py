"""Samples → tar shards → a committed chunk → manifest, index and video table.

Where data comes from: stage 1, one encoded sample at a time. Where it goes: the directory of a set.

    ChunkWriter   .tmp/<chunk>-<pid>/pass-00.tar …   written and hashed in one go
      .commit()   fsync → rename to pass-00/<chunk>.tar … → records/videos/<chunk>.json → rename of records/pass-00/<chunk>.parquet
    finalize()    all records → index.parquet, videos.parquet, manifest.json (shards.finalize)

The record is the commit: a shard without one does not exist for anybody and is overwritten by the next run.
Nothing in a set depends on time, machine, process or the order in which chunks land, so equal inputs give
equal bytes and sets can be compared by hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards import schema
from shards.files import atomic_file, fsync_path
from shards.finalize import finalize as finalize  # part of the names that this module keeps
from shards.records import committed as committed
from shards.records import write_videos
from shards.schema import Settings, ShardInfo

_BLOCK = tarfile.BLOCKSIZE
_RECORD = tarfile.RECORDSIZE


@dataclass(frozen=True)
class MemberRef:
    """Where a member's data lies inside its tar, and the CRC-32 of that data."""

    offset: int
    size: int
    crc32: int


class TarWriter:
    """A USTAR file with fixed owner, mode and time stamps, hashed while it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = open(path, "wb")
        self._sha256 = hashlib.sha256()
        self._position = 0

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._sha256.update(data)
        self._position += len(data)

    def add(self, name: str, data: bytes) -> MemberRef:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = len(data), 0, 0o644
        self._write(info.tobuf(tarfile.USTAR_FORMAT))
        reference = MemberRef(self._position, len(data), zlib.crc32(data))
        self._write(data)
        self._write(b"\0" * (-len(data) % _BLOCK))
        return reference

    def close(self) -> tuple[int, str]:
        """End the archive and flush it to disk; returns its size in bytes and SHA-256."""
        end = self._position + 2 * _BLOCK
        self._write(b"\0" * (2 * _BLOCK + -end % _RECORD))
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        return self._position, self._sha256.hexdigest()

    def abort(self) -> None:
        self._stream.close()


@dataclass(frozen=True)
class EncodedSample:
    """One sample ready for its shard.

    image: JPEG bytes. flows: per offset the `.flow` member or None when the pair is not stored. pair_columns: per
    index column of the neighbours (neighbour_frame, status, std_dx_px, ...) one value per offset. optional: extra
    members by suffix, for example {"p1.jpg": bytes}.
    """

    video: str
    frame: int
    time_s: float
    image: bytes
    flows: Sequence[bytes | None]
    pair_columns: Mapping[str, Sequence[Any]]
    optional: Mapping[str, bytes]


class ChunkWriter:
    """The shards of one chunk: one per pass, invisible until `commit`, gone after `abort`."""

    def __init__(self, root: Path, settings: Settings, chunk: int, passes: Sequence[int]) -> None:
        self.root, self.settings, self.chunk = root, settings, chunk
        self.directory = root / ".tmp" / f"{chunk:06d}-{os.getpid()}"
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self._tars = {p: TarWriter(self.directory / f"pass-{p:02d}.tar") for p in passes}
        self._rows: dict[int, list[dict[str, Any]]] = {p: [] for p in passes}

    def add(self, pass_index: int, position: int, sample: EncodedSample) -> None:
        """Append the sample of the position-th video of the chunk to the shard of a pass."""
        tar, offsets = self._tars[pass_index], self.settings.offsets
        key = schema.sample_key(self.chunk, pass_index, position)
        row: dict[str, Any] = {"key": key, "pass": pass_index, "shard": schema.shard_path(self.chunk, pass_index)}
        row |= {"video": sample.video, "frame": sample.frame, "time_s": sample.time_s, **sample.pair_columns}
        row |= _prefixed("image", tar.add(f"{key}.jpg", sample.image))
        references: list[MemberRef | None] = []
        for offset, data in zip(offsets, sample.flows, strict=True):
            name = f"{key}.{schema.offset_label(offset)}.flow"
            references.append(None if data is None else tar.add(name, data))
        row["flow_offset"] = [r.offset if r else None for r in references]
        row["flow_size"] = [r.size if r else None for r in references]
        row["flow_crc32"] = [r.crc32 if r else None for r in references]
        optional = {suffix: tar.add(f"{key}.{suffix}", data) for suffix, data in sorted(sample.optional.items())}
        row["optional_members"] = [{"name": suffix, **ref.__dict__} for suffix, ref in optional.items()]
        row |= _prefixed("json", tar.add(f"{key}.json", sample_json(row, offsets)))
        self._rows[pass_index].append(row)

    def commit(self, videos: Sequence[Mapping[str, Any]]) -> list[ShardInfo]:
        """Make the chunk part of the set. videos: one row of videos.parquet per video of the chunk."""
        index = schema.index_schema(len(self.settings.offsets))
        infos: list[ShardInfo] = []
        records: list[tuple[Path, Path]] = []
        for pass_index, tar in self._tars.items():
            size, digest = tar.close()
            path = schema.shard_path(self.chunk, pass_index)
            info = ShardInfo(path, len(self._rows[pass_index]), size, digest)
            table = pa.Table.from_pylist(self._rows[pass_index], schema=index)
            note = json.dumps({"shard": info.__dict__}, sort_keys=True)
            record = self.directory / f"pass-{pass_index:02d}.parquet"
            with atomic_file(record) as stream:
                pq.write_table(table.replace_schema_metadata({"flowfeat": note}), stream)
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(tar.path, self.root / path)
            fsync_path((self.root / path).parent)
            records.append((record, self.root / schema.record_path(self.chunk, pass_index)))
            infos.append(info)
        write_videos(self.root, self.chunk, videos)
        for source, target in records:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)
            fsync_path(target.parent)
        shutil.rmtree(self.directory)
        return infos

    def abort(self) -> None:
        """Drop everything written; the set is as if the chunk had never begun."""
        for tar in self._tars.values():
            tar.abort()
        shutil.rmtree(self.directory, ignore_errors=True)


def _prefixed(prefix: str, reference: MemberRef) -> dict[str, int]:
    return {f"{prefix}_{name}": value for name, value in reference.__dict__.items()}


def sample_json(row: Mapping[str, Any], offsets: Sequence[int]) -> bytes:
    """The `.json` member: what a reader without the index needs, CRCs of the other members included."""
    neighbours = {}
    for k, offset in enumerate(offsets):
        entry = {"offset": offset, "frame": row["neighbour_frame"][k], "time_s": row["neighbour_time_s"][k]}
        entry |= {"status": row["status"][k], "crc32": row["flow_crc32"][k]}
        neighbours[schema.offset_label(offset)] = entry
    optional = {m["name"]: m["crc32"] for m in row["optional_members"]}
    body = {"key": row["key"], "video": row["video"], "frame": row["frame"], "time_s": row["time_s"]}
    body |= {"image_crc32": row["image_crc32"], "neighbours": neighbours, "optional_crc32": optional}
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()

"""Names, columns and the manifest of a shard set: everything about format 1 that is not bytes of a flow.

The writer fills these, the reader and `verify` check against them. Normative text: shards/README.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from shards.layout import RECORDS as RECORDS  # part of the names that this module keeps, as are the following
from shards.layout import SampleError as SampleError
from shards.layout import ShardSetError as ShardSetError
from shards.layout import manifest_text
from shards.layout import record_path as record_path
from shards.layout import sample_key as sample_key
from shards.layout import shard_path as shard_path
from shards.layout import shard_place as shard_place
from shards.offsets import offset_label as offset_label
from shards.settings import NOISE_FLOOR_PX as NOISE_FLOOR_PX
from shards.settings import Settings as Settings
from shards.settings import Statement as Statement
from shards.storage import Folder, StorageError, inside, is_url, open_folder

FORMAT = "flowfeat-shards"
VERSION = 1
MANIFEST = "manifest.json"
INDEX = "index.parquet"
VIDEOS = "videos.parquet"
PLAN = f"{RECORDS}/plan.json"

# What became of one neighbour of one sample. Only STORED flows are trained on.
STORED, STILL, NON_FINITE, OUT_OF_RANGE = "stored", "still", "non_finite", "out_of_range"
PAIR_STATUS = (STORED, STILL, NON_FINITE, OUT_OF_RANGE)

OK, REJECTED = "ok", "rejected"


def _member(prefix: str) -> list[pa.Field]:
    return [
        pa.field(f"{prefix}_offset", pa.int64()),
        pa.field(f"{prefix}_size", pa.int32()),
        pa.field(f"{prefix}_crc32", pa.uint32()),
    ]


MOST_PASSES = 1 << 15
"""That a set may have: column `pass` of the index has 16 bits."""


def index_schema(n_offsets: int) -> pa.Schema:
    """Columns of index.parquet: one row per sample; fixed-size lists run over the manifest's offsets, in its order."""

    def per_offset(name: str, kind: pa.DataType) -> pa.Field:
        return pa.field(name, pa.list_(kind, n_offsets))

    member = pa.struct([("name", pa.string()), ("offset", pa.int64()), ("size", pa.int32()), ("crc32", pa.uint32())])
    return pa.schema(
        [
            pa.field("key", pa.string()),
            pa.field("pass", pa.int16()),
            pa.field("shard", pa.string()),
            pa.field("video", pa.string()),
            pa.field("frame", pa.int32()),
            pa.field("time_s", pa.float64()),
            *_member("json"),
            *_member("image"),
            per_offset("neighbour_frame", pa.int32()),
            per_offset("neighbour_time_s", pa.float64()),
            per_offset("status", pa.string()),
            per_offset("flow_offset", pa.int64()),
            per_offset("flow_size", pa.int32()),
            per_offset("flow_crc32", pa.uint32()),
            per_offset("quantum_exponent", pa.int8()),
            per_offset("mean_dx_px", pa.float32()),
            per_offset("mean_dy_px", pa.float32()),
            per_offset("std_dx_px", pa.float32()),
            per_offset("std_dy_px", pa.float32()),
            per_offset("max_px", pa.float32()),
            per_offset("confidence", pa.float32()),
            pa.field("optional_members", pa.list_(member)),
        ]
    )


VIDEOS_SCHEMA = pa.schema(
    [
        pa.field("video", pa.string()),
        pa.field("path", pa.string()),
        pa.field("chunk", pa.int32()),
        pa.field("position", pa.int32()),
        pa.field("status", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("frames", pa.int32()),
        pa.field("fps", pa.float64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("engine", pa.string()),
        pa.field("anchors", pa.int32()),
    ]
)


@dataclass(frozen=True)
class ShardInfo:
    """One tar file of a set."""

    path: str
    samples: int
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        shard_place(self.path)
        if type(self.samples) is not int or type(self.bytes) is not int or min(self.samples, self.bytes) < 0:
            raise ValueError(f"samples and bytes of {self.path} are {self.samples!r} and {self.bytes!r}")


@dataclass(frozen=True)
class Manifest:
    """manifest.json. `complete` is False while chunks or passes are missing."""

    settings: Settings
    complete: bool
    passes: int
    chunks: int
    counts: Mapping[str, Any]
    shards: Sequence[ShardInfo]
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError or TypeError for what no writer writes, so that a reader need not look again."""
        for name in ("passes", "chunks"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}")
        if not isinstance(self.complete, bool):
            raise TypeError(f"complete is {self.complete!r}")
        for name in ("counts", "files"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"{name} is {getattr(self, name)!r}")
        if not all(isinstance(entry, Mapping) for entry in self.files.values()):
            raise TypeError(f"files is {self.files!r}")
        if len({info.path for info in self.shards}) != len(self.shards):
            raise ValueError("a shard is listed twice")

    def to_bytes(self) -> bytes:
        """Canonical JSON with a digest of itself, so that a flipped bit in the manifest is found as well."""
        body = {
            "format": FORMAT,
            "version": VERSION,
            "complete": self.complete,
            "settings": self.settings.to_json(),
            "passes": self.passes,
            "chunks": self.chunks,
            "counts": dict(self.counts),
            "files": {k: dict(v) for k, v in self.files.items()},
            "shards": [s.__dict__ for s in self.shards],
        }
        return (manifest_text({**body, "self_sha256": self_digest(body)}) + "\n").encode()

    @staticmethod
    def from_bytes(data: bytes, where: Path | str) -> Manifest:
        """Parse and check. Raises ShardSetError: not JSON, another format or version, or a digest that does not match."""
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ShardSetError(
                f"{where} is not readable JSON ({error}); restore it or rerun the extraction command"
            ) from error
        if not isinstance(body, dict) or body.get("format") != FORMAT:
            raise ShardSetError(f'{where} is not the manifest of a shard set (no "format": "{FORMAT}")')
        if body.get("version") != VERSION:
            raise ShardSetError(
                f"{where} has format version {body.get('version')!r}; this program reads version {VERSION}"
            )
        if body.get("self_sha256") != self_digest(body):
            raise ShardSetError(
                f"{where} does not match its own digest: it is damaged or was edited; rerun the extraction command"
            )
        try:
            return Manifest(
                settings=Settings.from_json(body["settings"]),
                complete=body["complete"],
                passes=body["passes"],
                chunks=body["chunks"],
                counts=body["counts"],
                shards=[ShardInfo(**s) for s in body["shards"]],
                files=body["files"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ShardSetError(
                f"{where} is not what format {VERSION} says ({type(error).__name__}: {error}); rerun the extraction command"
            ) from error


def self_digest(body: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest's canonical JSON without its `self_sha256` entry."""
    rest = {k: v for k, v in body.items() if k != "self_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_manifest(root: Path | str, folder: Folder | None = None) -> Manifest:
    """The manifest of the set at `root`. Raises ShardSetError when there is none or it cannot be trusted."""
    if is_url(root):
        where = inside(root, MANIFEST)
        try:
            return Manifest.from_bytes((folder or open_folder(root)).read(MANIFEST), where)
        except StorageError as error:
            if error.missing:
                raise ShardSetError(f"no shard set at {root}: there is no {MANIFEST}") from error
            raise ShardSetError(f"the shard set at {root} cannot be read: {error.strerror}") from error
    path = Path(root) / MANIFEST
    if not path.parent.is_dir():
        raise ShardSetError(f"no shard set at {root}: the directory does not exist (make extract-flow creates one)")
    if not path.is_file():
        started = (path.parent / RECORDS).is_dir() or (path.parent / ".locks").is_dir()
        hint = "make extract-flow creates one"
        if next((path.parent / RECORDS).glob("pass-*/*.parquet"), None) is not None:
            hint = "chunks have landed, and extraction has not written one yet; wait, or rerun its command"
        elif started:
            hint = "extraction has begun but no chunk has landed yet; wait, or rerun it"
        raise ShardSetError(f"no {MANIFEST} in {root}: {hint}")
    return Manifest.from_bytes(path.read_bytes(), path)

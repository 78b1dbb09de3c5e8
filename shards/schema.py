"""Names, columns and the manifest of a shard set: everything about format 1 that is not bytes of a flow.

The writer fills these, the reader and `verify` check against them. Normative text: shards/README.md.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from shards.cut_settings import cut_threshold, stated
from shards.layout import RECORDS as RECORDS  # part of the names that this module keeps, as are the following
from shards.layout import SampleError as SampleError
from shards.layout import ShardSetError as ShardSetError
from shards.layout import manifest_text
from shards.layout import record_path as record_path
from shards.layout import sample_key as sample_key
from shards.layout import shard_path as shard_path
from shards.layout import shard_place as shard_place
from shards.offsets import check_offsets
from shards.offsets import offset_label as offset_label  # part of the names that this module keeps
from shards.storage import Folder, StorageError, inside, is_url, open_folder

FORMAT = "flowfeat-shards"
VERSION = 1
MANIFEST = "manifest.json"
INDEX = "index.parquet"
VIDEOS = "videos.parquet"
PLAN = f"{RECORDS}/plan.json"
NOISE_FLOOR_PX = 0.02
SMALLEST_SIDE, LARGEST_SIDE = 16, 4096  # pixels; a flow member says its sides in 1..4096
LARGEST_CHUNK = 10_000  # videos; a key has four digits for the position in the chunk

# What became of one neighbour of one sample. Only STORED flows are trained on.
STORED, STILL, NON_FINITE, OUT_OF_RANGE = "stored", "still", "non_finite", "out_of_range"
PAIR_STATUS = (STORED, STILL, NON_FINITE, OUT_OF_RANGE)

OK, REJECTED = "ok", "rejected"

Statement = Mapping[str, str | int | float | bool | None]
"""What an estimator says about itself in the manifest: all that shapes its flow."""


def _member(prefix: str) -> list[pa.Field]:
    return [
        pa.field(f"{prefix}_offset", pa.int64()),
        pa.field(f"{prefix}_size", pa.int32()),
        pa.field(f"{prefix}_crc32", pa.uint32()),
    ]


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
class Settings:
    """Everything that shapes the content of a set. Extending a set with other settings is refused.

    offsets: signed neighbour offsets in nominal frames. image_size, flow_size: side of the stored square image and
    of the flow grid, pixels. estimator: its name and what it says about itself (weights, iterations, ...). cut_detector: "" takes windows
    across shot cuts too; else one of CUT_THRESHOLDS, with its threshold (0: the detector's own) and most_cuts_per_minute (0: any number).
    Raises ValueError naming the value and what it may be: what exists has been checked, and nobody need check it again.
    """

    dataset: str
    estimator: Statement
    seed: int = 0
    offsets: tuple[int, ...] = (-2, -1, 1, 2)
    image_size: int = 448
    flow_size: int = 224
    jpeg_quality: int = 90
    chunk_videos: int = 256
    noise_floor_px: float = NOISE_FLOOR_PX
    keep_neighbours: bool = False
    keep_confidence: bool = False
    cut_detector: str = ""
    cut_threshold: float = 0.0
    most_cuts_per_minute: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "offsets", check_offsets(self.offsets))
        if not SMALLEST_SIDE <= self.image_size <= LARGEST_SIDE:
            raise ValueError(f"image_size is {self.image_size}; give {SMALLEST_SIDE}..{LARGEST_SIDE} pixels")
        if not SMALLEST_SIDE <= self.flow_size <= self.image_size:
            raise ValueError(
                f"flow_size is {self.flow_size}; give {SMALLEST_SIDE}..{self.image_size} pixels "
                f"(flow is computed on the stored image made smaller, and image_size is {self.image_size})"
            )
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality is {self.jpeg_quality}; give 1..100")
        if not 1 <= self.chunk_videos <= LARGEST_CHUNK:
            raise ValueError(f"chunk_videos is {self.chunk_videos}; give 1..{LARGEST_CHUNK}")
        if not 0 <= self.noise_floor_px < math.inf:
            raise ValueError(f"noise_floor_px is {self.noise_floor_px}; give a number of pixels from 0")
        given = self.cut_detector, self.cut_threshold, self.most_cuts_per_minute
        object.__setattr__(self, "cut_threshold", cut_threshold(*given))

    def to_json(self) -> dict[str, Any]:
        return stated({**self.__dict__, "offsets": list(self.offsets), "estimator": dict(self.estimator)})

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Settings:
        return Settings(**{**data, "offsets": tuple(data["offsets"])})

    def differences(self, other: Settings) -> list[str]:
        """One "name: mine, not theirs" line per setting that differs."""
        mine, theirs = _flat(self.to_json()), _flat(other.to_json())
        names = sorted(mine.keys() | theirs.keys())
        return [
            f"{n}: {theirs.get(n)!r} in the set, {mine.get(n)!r} asked for"
            for n in names
            if mine.get(n) != theirs.get(n)
        ]


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value})
    return flat


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
        except ValueError as error:
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
        started = (path.parent / RECORDS).is_dir() or (path.parent / ".lock").exists()
        hint = "make extract-flow creates one"
        if next((path.parent / RECORDS).glob("pass-*/*.parquet"), None) is not None:
            hint = "chunks have landed, and extraction has not written one yet; wait, or rerun its command"
        elif started:
            hint = "extraction has begun but no chunk has landed yet; wait, or rerun it"
        raise ShardSetError(f"no {MANIFEST} in {root}: {hint}")
    return Manifest.from_bytes(path.read_bytes(), path)

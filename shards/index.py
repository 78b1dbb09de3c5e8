"""index.parquet → arrays: about 130 bytes per sample, the same memory in every process that is forked afterwards.

Comes in: the file of a set and its manifest. Goes out: `Index`, which `shards.reader` looks samples up in. The file is read batch by batch
into arrays of their final size, and no row becomes a Python object. What a reader relies on is checked here, once: rows name shards of
the manifest, keys are those that format 1 gives them, members lie inside their shards.
"""

from __future__ import annotations

import hashlib
import io
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, SupportsIndex, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shards import schema
from shards.schema import Manifest, ShardSetError
from shards.storage import Folder, inside, is_url, open_folder

BATCH_ROWS = 1 << 16
MEMBER = ("offset", "size", "crc32")
_READ_AGAIN = "rerun the extraction command to rebuild it"


def open_table(root: Path | str, name: str, manifest: Manifest, folder: Folder | None = None) -> pq.ParquetFile:
    """A parquet file of the set, compared with its digest in the manifest. ShardSetError where it differs, is missing or is no parquet."""
    path = inside(root, name)
    try:
        stream = _stream(root, name, folder)
    except OSError as error:
        raise ShardSetError(f"{path} cannot be read ({error.strerror}); {_READ_AGAIN}") from error
    expected = manifest.files.get(name, {}).get("sha256")
    if hashlib.file_digest(stream, "sha256").hexdigest() != expected:  # type: ignore[arg-type]
        raise ShardSetError(
            f"{path} does not match the manifest: the set is being written, or the file is damaged; "
            "wait for the extraction, or rerun its command to rebuild the file"
        )
    stream.seek(0)
    try:
        # Arrow's own threads may outlive a read and then die with the interpreter, which aborts (apache/arrow#34314): none of them gets
        # to hold a file of Python's, here and wherever such a file is read.
        return pq.ParquetFile(stream, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise ShardSetError(f"{path} is no parquet file ({_first_line(error)}); {_READ_AGAIN}") from error


def _stream(root: Path | str, name: str, folder: Folder | None) -> BinaryIO:
    """Opened once, so that what is read is what was hashed."""
    if is_url(root):
        return io.BytesIO((folder or open_folder(root)).read(name))
    path = Path(root) / name
    if path.exists() and not path.is_file():
        raise OSError(0, "no regular file", str(path))
    return open(path, "rb")


def read_table(root: Path | str, name: str, manifest: Manifest, folder: Folder | None = None) -> pa.Table:
    """All of a parquet file of the set. Raises as `open_table` does."""
    try:
        return open_table(root, name, manifest, folder).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ShardSetError(f"{inside(root, name)} is damaged ({_first_line(error)}); {_READ_AGAIN}") from error


class Names(Sequence[str]):
    """Strings that live in an Arrow dictionary array: a number per row, each distinct string once."""

    def __init__(self, codes: NDArray[np.int32], distinct: pa.Array) -> None:
        self.codes, self.distinct = codes, distinct

    def __len__(self) -> int:
        return len(self.codes)

    def _at(self, rows: slice) -> list[str]:
        found: list[str] = self.distinct.take(pa.array(self.codes[rows])).to_pylist()
        return found

    @overload
    def __getitem__(self, row: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: SupportsIndex | slice) -> str | list[str]:
        if isinstance(row, slice):
            return self._at(row)
        return str(self.distinct[int(self.codes[operator.index(row)])].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BATCH_ROWS):
            yield from self._at(slice(start, start + BATCH_ROWS))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(other) == len(self) and all(a == b for a, b in zip(self, other))  # noqa: B905

    __hash__ = None  # type: ignore[assignment]


class Keys(Names):
    """Keys, made from shard and position when they are asked for. distinct: what the keys of each shard begin with."""

    def __init__(self, codes: NDArray[np.int32], distinct: pa.Array, position: NDArray[np.int16]) -> None:
        super().__init__(codes, distinct)
        self.position = position

    def _at(self, rows: slice) -> list[str]:
        return [f"{head}{place:04d}" for head, place in zip(super()._at(rows), self.position[rows], strict=True)]

    @overload
    def __getitem__(self, row: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: SupportsIndex | slice) -> str | list[str]:
        return (
            self._at(row)
            if isinstance(row, slice)
            else f"{super().__getitem__(row)}{self.position[operator.index(row)]:04d}"
        )


@dataclass(frozen=True)
class Index:
    """One row per sample, K neighbours. shard: position in the manifest's list; image, json [n, 3], flow [n, K, 3]: offset, size, CRC-32
    of members, 0 where there is none; status [n, K]: position in PAIR_STATUS; std_px [n, K, 2]; optional: list of structs per row."""

    keys: Keys
    video: Names
    pass_index: NDArray[np.int16]
    frame: NDArray[np.int32]
    shard: NDArray[np.int32]
    image: NDArray[Any]
    json: NDArray[Any]
    flow: NDArray[Any]
    status: NDArray[np.uint8]
    quantum_exponent: NDArray[np.int8]
    std_px: NDArray[np.float32]
    optional: pa.Array


def read_index(root: Path | str, manifest: Manifest, folder: Folder | None = None) -> Index:
    """ShardSetError where the file differs from the manifest, lacks a column, or names what the set does not hold."""
    file = open_table(root, schema.INDEX, manifest, folder)
    place, width = inside(root, schema.INDEX), len(manifest.settings.offsets)
    wanted = _wanted_schema(file, width, place)
    rows = file.metadata.num_rows
    bytes_of = np.array([info.bytes for info in manifest.shards], np.int64)
    compact: type[np.generic] = np.uint32 if bytes_of.max(initial=0) < 2**32 else np.int64
    index = Index(
        keys=Keys(np.empty(rows, np.int32), _heads(manifest), np.empty(rows, np.int16)),
        video=Names(np.empty(rows, np.int32), pa.array([], pa.string())),
        pass_index=np.empty(rows, np.int16),
        frame=np.empty(rows, np.int32),
        shard=np.empty(rows, np.int32),
        image=np.empty((rows, 3), compact),
        json=np.empty((rows, 3), compact),
        flow=np.empty((rows, width, 3), compact),
        status=np.empty((rows, width), np.uint8),
        quantum_exponent=np.empty((rows, width), np.int8),
        std_px=np.empty((rows, width, 2), np.float32),
        optional=pa.array([], wanted.field("optional_members").type),
    )
    fill, done = _Fill(index, manifest, bytes_of, width), 0
    try:
        for batch in file.iter_batches(BATCH_ROWS, columns=wanted.names, use_threads=False):
            table = pa.Table.from_batches([batch]).select(wanted.names).cast(wanted)
            fill.add(table, slice(done, done + len(batch)))
            done += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise ShardSetError(f"{place} is damaged ({_first_line(error)}); {_READ_AGAIN}") from error
    except _Wrong as error:
        raise ShardSetError(f"{place} {error}; {_READ_AGAIN}") from error
    video = Names(index.video.codes, pa.array(fill.videos, pa.string()))
    keys = Keys(index.shard, index.keys.distinct, index.keys.position)
    optional = pa.chunked_array(fill.optional, index.optional.type).combine_chunks()
    return Index(**{**index.__dict__, "keys": keys, "video": video, "optional": optional})


class _Wrong(ValueError):
    """What a batch has that format 1 does not allow; begins with a verb."""


def _wanted_schema(file: pq.ParquetFile, width: int, place: str) -> pa.Schema:
    names = ["key", "pass", "shard", "video", "frame", *(f"{m}_{c}" for m in ("json", "image", "flow") for c in MEMBER)]
    names += ["status", "quantum_exponent", "std_dx_px", "std_dy_px", "optional_members"]
    full, found = schema.index_schema(width), file.schema_arrow.names
    missing = [name for name in names if name not in found]
    if missing:
        raise ShardSetError(f"{place} has no column {missing[0]!r}; {_READ_AGAIN}")
    return pa.schema([full.field(name) for name in names])


def _heads(manifest: Manifest) -> pa.Array:
    """What keys begin with, per shard: chunk, pass, and the dash before the position."""
    places = (schema.shard_place(info.path) for info in manifest.shards)
    return pa.array([schema.sample_key(chunk, pass_index, 0)[:-4] for chunk, pass_index in places], pa.string())


class _Fill:
    """Takes batches into an index. videos: distinct names so far."""

    def __init__(self, index: Index, manifest: Manifest, bytes_of: NDArray[np.int64], width: int) -> None:
        self.index, self.bytes_of, self.width = index, bytes_of, width
        self.paths = pa.array([info.path for info in manifest.shards], pa.string())
        self.optional: list[pa.Array] = []
        self.videos: list[str] = []
        self._code_of: dict[str, int] = {}

    def add(self, table: pa.Table, rows: slice) -> None:
        column = {name: table.column(name).combine_chunks() for name in table.column_names}
        for name, values in column.items():
            if values.null_count:
                raise _Wrong(f"has an empty field in column {name!r}")
        index = self.index
        shard = index.shard[rows] = self._shards(column["shard"])
        index.keys.position[rows] = self._positions(column["key"], shard)
        index.video.codes[rows] = self._video_codes(column["video"])
        index.pass_index[rows], index.frame[rows] = column["pass"].to_numpy(), column["frame"].to_numpy()
        ends = self.bytes_of[shard]
        for name, target in (("image", index.image), ("json", index.json)):
            parts = [column[f"{name}_{c}"].to_numpy() for c in MEMBER]
            target[rows] = _inside(name, np.stack(parts, axis=-1, dtype=np.int64), ends, column["key"])
        parts = [self._lists(column[f"flow_{c}"]) for c in MEMBER]
        flow = np.stack(parts, axis=-1, dtype=np.int64)
        index.flow[rows] = _inside("flow", flow, ends[:, None], column["key"])
        index.status[rows] = self._statuses(column["status"])
        index.quantum_exponent[rows] = self._lists(column["quantum_exponent"])
        for c, name in enumerate(("std_dx_px", "std_dy_px")):
            index.std_px[rows, :, c] = self._lists(column[name])
        optional = column["optional_members"]
        members = optional.flatten()
        if len(members):
            of = pc.list_parent_indices(optional).to_numpy()
            found = [members.field(c).to_numpy(zero_copy_only=False).astype(np.int64) for c in MEMBER]
            _inside("optional", np.stack(found, axis=-1), ends[of], column["key"].take(pa.array(of)))
        self.optional.append(optional)

    def _shards(self, paths: pa.Array) -> NDArray[np.int32]:
        codes = pc.index_in(paths, value_set=self.paths)
        if codes.null_count:
            stranger = paths.filter(codes.is_null())[0].as_py()
            raise _Wrong(f"names the shard {stranger!r}, which the manifest does not list")
        return np.asarray(codes.to_numpy(), np.int32)

    def _positions(self, keys: pa.Array, shard: NDArray[np.int32]) -> NDArray[np.int16]:
        digits = pc.utf8_slice_codeunits(keys, -4)
        made = pc.binary_join_element_wise(self.index.keys.distinct.take(pa.array(shard)), digits, "")
        wrong = pc.invert(pc.and_(pc.equal(made, keys), pc.match_substring_regex(digits, "^[0-9]{4}$")))
        if pc.any(wrong).as_py():
            raise _Wrong(f"has the key {keys.filter(wrong)[0].as_py()!r} in a shard whose keys are others")
        return np.asarray(pc.cast(digits, pa.int16()).to_numpy(), np.int16)

    def _video_codes(self, videos: pa.Array) -> NDArray[np.int32]:
        encoded = videos.dictionary_encode()
        names: list[str] = encoded.dictionary.to_pylist()
        codes = np.empty(len(names), np.int32)
        for place, name in enumerate(names):
            codes[place] = self._code_of.setdefault(name, len(self.videos))
            if codes[place] == len(self.videos):
                self.videos.append(name)
        return codes[encoded.indices.to_numpy()]

    def _lists(self, column: pa.Array) -> NDArray[Any]:
        flat = column.flatten()
        if pa.types.is_integer(flat.type):
            flat = flat.fill_null(0)
        return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(-1, self.width)

    def _statuses(self, column: pa.Array) -> NDArray[np.uint8]:
        names = column.flatten()
        codes = pc.index_in(names, value_set=pa.array(schema.PAIR_STATUS))
        if codes.null_count:
            stranger = names.filter(codes.is_null())[0].as_py()
            raise _Wrong(f"holds the pair status {stranger!r}; format 1 knows {', '.join(schema.PAIR_STATUS)}")
        return np.asarray(codes.to_numpy().astype(np.uint8)).reshape(-1, self.width)


def _inside(what: str, members: NDArray[np.int64], ends: NDArray[np.int64], keys: pa.Array) -> NDArray[np.int64]:
    """`members` [..., 3], all of which lie inside their shards of `ends` bytes."""
    offset, size = members[..., 0], members[..., 1]
    wrong = (offset < 0) | (size < 0) | (offset + size > ends) | (offset + size < 0)
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        raise _Wrong(f"says that {what} of {keys[row].as_py()} lies outside its shard")
    return members


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

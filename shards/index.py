"""index.parquet → arrays: about 100 bytes per sample, the same memory in every process that is forked afterwards.

Comes in: the file of a set and its manifest. Goes out: `Index`, which `shards.reader` looks samples up in. The file is read batch by batch
into arrays of their final size, and no row becomes a Python object; `shards.index_rows` checks what a reader relies on.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shards import schema
from shards.index_arrays import BATCH_ROWS, Deviations, Index, Keys, Names
from shards.index_rows import MEMBER, IndexRows, WrongRow, heads_of, lists
from shards.schema import Manifest, ShardSetError
from shards.storage import Folder, inside, is_url, open_folder

_BUFFER_BYTES = 1 << 20  # per column: pages come one after the other, not all of a row group at once
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
        return pq.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER_BYTES)
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


def check_table(root: Path | str, name: str, manifest: Manifest) -> None:
    """Read a parquet file of the set and forget it, batch by batch. Raises as `open_table` does."""
    file = open_table(root, name, manifest)
    try:
        for _ in file.iter_batches(BATCH_ROWS, use_threads=False):
            pass
    except (pa.ArrowException, OSError) as error:
        raise ShardSetError(f"{inside(root, name)} is damaged ({_first_line(error)}); {_READ_AGAIN}") from error


def read_index(root: Path | str, manifest: Manifest, folder: Folder | None = None) -> Index:
    """ShardSetError where the file differs from the manifest, lacks a column, or names what the set does not hold."""
    names = ["key", "pass", "shard", "video", "frame", *(f"{m}_{c}" for m in ("json", "image", "flow") for c in MEMBER)]
    table = _Table(root, manifest, folder, [*names, "status", "optional_members"])
    rows, width = table.rows, table.width
    bytes_of = np.array([info.bytes for info in manifest.shards], np.int64)
    compact: type[np.generic] = np.uint32 if bytes_of.max(initial=0) < 2**32 else np.int64
    index = Index(
        keys=Keys(np.empty(0, np.int32), heads_of(manifest), np.empty(rows, np.int16)),
        video=Names(np.empty(rows, np.int32), pa.array([], pa.string())),
        pass_index=np.empty(rows, np.int16),
        frame=np.empty(rows, np.int32),
        shard=np.empty(rows, np.int32),
        image=np.empty((rows, 3), compact),
        json=np.empty((rows, 3), compact),
        flow=np.empty((rows, width, 3), compact),
        status=np.empty((rows, width), np.uint8),
        optional=pa.array([], table.schema.field("optional_members").type),
    )
    fill = IndexRows(index, manifest, bytes_of, width)
    table.read(fill.add)
    video = Names(index.video.codes, fill.videos)
    keys = Keys(index.shard, index.keys.distinct, index.keys.position)
    optional = pa.chunked_array(fill.optional, index.optional.type).combine_chunks()
    return replace(index, keys=keys, video=video, optional=optional)


def read_deviations(root: Path | str, manifest: Manifest, folder: Folder | None = None) -> Deviations:
    """What the index says of how much each flow varies; few need it, and it is a quarter of what is to be held. Raises as `read_index`."""
    names = ["quantum_exponent", "std_dx_px", "std_dy_px"]
    table = _Table(root, manifest, folder, names)
    found = Deviations(np.empty((table.rows, table.width), np.int8), np.empty((table.rows, table.width, 2), np.float32))

    def add(batch: pa.Table, rows: slice) -> None:
        exponent, dx, dy = (lists(batch.column(name).combine_chunks(), table.width) for name in names)
        found.quantum_exponent[rows], found.std_px[rows, :, 0], found.std_px[rows, :, 1] = exponent, dx, dy

    table.read(add)
    return found


class _Table:
    """Columns of index.parquet, as format 1 has them, batch by batch."""

    def __init__(self, root: Path | str, manifest: Manifest, folder: Folder | None, names: list[str]) -> None:
        self.place, self.width = inside(root, schema.INDEX), len(manifest.settings.offsets)
        self.file = open_table(root, schema.INDEX, manifest, folder)
        self.rows: int = self.file.metadata.num_rows
        full, found = schema.index_schema(self.width), self.file.schema_arrow.names
        missing = [name for name in names if name not in found]
        if missing:
            raise ShardSetError(f"{self.place} has no column {missing[0]!r}; {_READ_AGAIN}")
        self.schema = pa.schema([full.field(name) for name in names])

    def read(self, add: Callable[[pa.Table, slice], None]) -> None:
        """Hand over all rows, with where they are. ShardSetError for damage and for a WrongRow that `add` raises."""
        done = 0
        try:
            for batch in self.file.iter_batches(BATCH_ROWS, columns=self.schema.names, use_threads=False):
                table = pa.Table.from_batches([batch]).select(self.schema.names).cast(self.schema)
                add(table, slice(done, done + len(batch)))
                done += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise ShardSetError(f"{self.place} is damaged ({_first_line(error)}); {_READ_AGAIN}") from error
        except WrongRow as error:
            raise ShardSetError(f"{self.place} {error}; {_READ_AGAIN}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

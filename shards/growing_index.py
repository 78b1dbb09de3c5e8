"""index.parquet: written whole, in the order of the format, or as a copy of an earlier one with rows added behind.

Comes in: tables of rows, each of one shard. Goes out: a file at the path that it is given (`shards.finalize` publishes it). Adding rows
copies what is there as bytes, so it costs the rows that are new, and what a copy and a digest of the file cost.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from shards import schema
from shards.schema import ShardSetError

GROUP_ROWS = 1 << 20
"""Rows of a row group of index.parquet."""

_MAGIC = b"PAR1"
_TAIL_BYTES = 8  # the footer's length and the magic, which end every parquet file
_PIECE_BYTES = 1 << 24


def write_index(path: Path, tables: Iterable[pa.Table], width: int) -> int:
    """Rows in groups of GROUP_ROWS, to the bytes that writing all tables at once would give; returns how many. width: number of offsets."""
    stream = iter(tables)
    first = next(stream, schema.index_schema(width).empty_table())
    with pq.ParquetWriter(
        path, first.schema
    ) as writer:  # as it was read: the names inside of lists are part of the bytes
        return _write_groups(writer, first, stream)


def extend_index(path: Path, earlier: Path, sha256: str, tables: Iterable[pa.Table]) -> int:
    """The rows of `earlier`, whose digest must be `sha256`, then those of the tables; returns how many were added. ShardSetError where
    the digest is another."""
    collected: list[pq.FileMetaData] = []
    with open(earlier, "rb") as source:  # opened once: another run may put its own in the place
        if hashlib.file_digest(source, "sha256").hexdigest() != sha256:
            raise ShardSetError(f"{earlier} does not match the manifest")
        stream = iter(tables)
        first = next(stream)
        with (
            pa.OSFile(str(path), "wb") as sink,
            pq.ParquetWriter(sink, first.schema, metadata_collector=collected) as writer,
        ):
            # The writer has written its magic and asks the sink where it is: what is written past it moves the rows that follow.
            _copy_rows(source, sink)
            added = _write_groups(writer, first, stream)
        source.seek(0)
        found = pq.read_metadata(source)
    found.append_row_groups(collected[0])
    footer = io.BytesIO()
    found.write_metadata_file(footer)  # a parquet file without rows: magic and footer
    with open(path, "r+b") as file:
        file.truncate(_footer_start(file))
        file.seek(0, os.SEEK_END)
        file.write(footer.getvalue()[len(_MAGIC) :])
    return added


def _copy_rows(source: BinaryIO, sink: pa.NativeFile) -> None:
    """All that lies between the magic and the footer of a file."""
    left = _footer_start(source) - source.seek(len(_MAGIC))
    while left > 0:
        piece = source.read(min(left, _PIECE_BYTES))
        sink.write(piece)
        left -= len(piece)


def _footer_start(file: BinaryIO) -> int:
    end = file.seek(-_TAIL_BYTES, os.SEEK_END)
    return end - int.from_bytes(file.read(4), "little")


def _write_groups(writer: pq.ParquetWriter, first: pa.Table, tables: Iterator[pa.Table]) -> int:
    held, done, rows = [first], 0, first.num_rows
    for table in tables:
        held.append(table)
        rows += table.num_rows
        while rows > GROUP_ROWS:
            whole = pa.concat_tables(held)
            writer.write_table(whole.slice(0, GROUP_ROWS), row_group_size=GROUP_ROWS)
            held, done, rows = [whole.slice(GROUP_ROWS)], done + GROUP_ROWS, rows - GROUP_ROWS
    writer.write_table(pa.concat_tables(held), row_group_size=GROUP_ROWS)
    return done + rows

"""index.parquet: written whole, in the order of the format, or as a copy of an earlier one with rows added behind.

Comes in: tables of rows, each of one shard. Goes out: a file at the path that it is given (`shards.finalize` publishes it). Adding rows
copies what is there as bytes, so it costs the rows that are new, and what a copy and a digest of the file cost.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shards import schema
from shards.schema import ShardSetError

GROUP_ROWS = 1 << 20
"""Rows of a row group of index.parquet."""

_MAGIC = b"PAR1"
_TAIL_BYTES = 8  # the footer's length and the magic, which end every parquet file
_PIECE_BYTES = 1 << 20
_PACKED_TABLES = 32


def write_index(path: Path, tables: Iterable[pa.Table], width: int) -> int:
    """Rows in groups of GROUP_ROWS, to the bytes that writing all tables at once would give; returns how many. width: number of offsets."""
    stream = iter(tables)
    first = next(stream, schema.index_schema(width).empty_table())
    with pq.ParquetWriter(
        path, first.schema
    ) as writer:  # as it was read: the names inside of lists are part of the bytes
        return _write_groups(writer, first, stream)


def extend_index(path: Path, earlier: Path, sha256: str, tables: Iterable[pa.Table]) -> tuple[int, str]:
    """The rows of `earlier`, whose digest must be `sha256`, then those of the tables. Returns how many were added, and the digest of the
    new file. ShardSetError where the digest is another."""
    collected: list[pq.FileMetaData] = []
    with open(earlier, "rb") as source:  # opened once: another run may put its own in the place
        digest, end = _digests(source, sha256)
        stream = iter(tables)
        first = next(stream)
        with (
            pa.OSFile(str(path), "wb") as sink,
            pq.ParquetWriter(sink, first.schema, metadata_collector=collected) as writer,
        ):
            # The writer has written its magic and asks the sink where it is: what is written past it moves the rows that follow.
            for piece in _pieces(source, end - source.seek(len(_MAGIC))):
                sink.write(piece)
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
        for piece in _pieces(file, _footer_start(file) - file.seek(end)):
            digest.update(piece)
        _written.clear()
        _written[_identity(file)] = digest.copy(), file.tell()
        digest.update(file.read())
    return added, digest.hexdigest()


_written: dict[tuple[int, ...], tuple[hashlib._Hash, int]] = {}
"""What `_digests` gives for the file that was written last, so that a set that grows is not hashed anew for every chunk."""


def _digests(source: io.BufferedReader, sha256: str) -> tuple[hashlib._Hash, int]:
    """Digest of what comes before the footer, whose bytes a longer file begins with, and where the footer begins. ShardSetError where
    the whole file's is not `sha256`."""
    known = _written.get(_identity(source))
    if known is None:
        known = hashlib.sha256(), _footer_start(source)
        for piece in _pieces(source, known[1] - source.seek(0)):
            known[0].update(piece)
    rows, end = known[0].copy(), known[1]
    whole = rows.copy()
    source.seek(max(0, end))
    whole.update(source.read())
    if whole.hexdigest() != sha256:
        raise ShardSetError(f"{source.name} does not match the manifest")
    return rows, end


def _identity(file: io.BufferedIOBase) -> tuple[int, ...]:
    file.flush()
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _pieces(file: io.BufferedIOBase, left: int) -> Iterator[memoryview]:
    """The next so many bytes. Each piece takes the place of the one before: memory that is new for each costs several times the copying."""
    place = memoryview(bytearray(_PIECE_BYTES))
    while left > 0 and (count := file.readinto(place[: min(left, _PIECE_BYTES)])):
        yield place[:count]
        left -= count


def _footer_start(file: io.BufferedIOBase) -> int:
    end = file.seek(max(-_TAIL_BYTES, -os.fstat(file.fileno()).st_size), os.SEEK_END)
    return end - int.from_bytes(file.read(4), "little")


def _write_groups(writer: pq.ParquetWriter, first: pa.Table, tables: Iterator[pa.Table]) -> int:
    """Whoever waits for Python's lock meanwhile gets it soon: what is let go of goes table by table."""
    held, done, rows = [first], 0, first.num_rows
    for table in tables:
        held.append(table)
        rows += table.num_rows
        while rows > GROUP_ROWS:
            rest = _write_group(writer, held)
            while held:
                held.pop()
            held, done, rows = [rest], done + GROUP_ROWS, rows - GROUP_ROWS
    _write_group(writer, held)
    while held:
        held.pop()
    return done + rows


def _write_group(writer: pq.ParquetWriter, held: Sequence[pa.Table]) -> pa.Table:
    """Write one group; returns the rows that are too many for it."""
    whole = pa.concat_tables(held)
    writer.write_table(whole.slice(0, GROUP_ROWS), row_group_size=GROUP_ROWS)
    return whole.slice(GROUP_ROWS)


def packed(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same tables in common memory: as they are read, each has dozens of allocations that hold twice what is in them. They stay apart,
    for where one ends shapes the pages of the file."""
    stream = iter(tables)
    while several := list(islice(stream, _PACKED_TABLES)):
        ends = list(accumulate(table.num_rows for table in several))
        common = pa.concat_tables(several).combine_chunks()
        several = [common.slice(end - table.num_rows, table.num_rows) for end, table in zip(ends, several, strict=True)]
        del common
        while several:
            yield several.pop(0)

"""The rows of an index that is there, shard by shard in whatever order they are asked for.

Comes in: index.parquet, shards in the order in which they have landed. Goes out: tables for `shards.growing_index`, each equal to what its
shard's commit record holds. The file is read once from end to end, into a scratch file with one piece per shard: that costs a third of
reading the records. The scratch file, 0.4 KiB per sample, has no name and goes with the process.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards.schema import ShardSetError

_BATCH_ROWS = 1 << 13  # 3 MiB; larger ones are not read faster
_BUFFER_BYTES = 1 << 20


@contextmanager
def rows_by_shard(index: Path, sha256: str) -> Iterator[Callable[[str], pa.Table]]:
    """Gives the function from a shard's path to its rows, none for a path without. ShardSetError where the index is damaged or its
    digest is another; OSError."""
    # Named as `shards.files` names temporary files, for file systems on which it has a name at first.
    unnamed = tempfile.TemporaryFile(dir=index.parent, prefix=f".{index.name}.", suffix=".tmp")
    with unnamed as scratch, open(index, "rb") as source:  # opened once: another run may put its own in the place
        if hashlib.file_digest(source, "sha256").hexdigest() != sha256:
            raise ShardSetError(f"{index} does not match the manifest")
        source.seek(0)
        places: dict[str, tuple[int, int]] = {}
        try:
            file = pq.ParquetFile(source, pre_buffer=False, buffer_size=_BUFFER_BYTES)
            for path, batch in _shards(file):
                if path in places:
                    raise ShardSetError(f"{index} has rows of {path} in two places")
                message = batch.serialize()
                places[path] = scratch.tell(), message.size
                scratch.write(message)
        except pa.ArrowException as error:
            raise ShardSetError(f"{index} is damaged ({error})") from error
        nothing = file.schema_arrow.empty_table()

        def rows(path: str) -> pa.Table:
            if path not in places:
                return nothing
            start, size = places[path]
            scratch.seek(start)
            # All columns in one piece of memory, which needs no packing.
            batch = pa.ipc.read_record_batch(pa.py_buffer(scratch.read(size)), nothing.schema)
            return pa.Table.from_batches([batch])

        yield rows


def _shards(file: pq.ParquetFile) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Path and rows of each shard, in the file's order."""
    path, held = "", list[pa.RecordBatch]()
    for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
        start, runs = 0, pc.run_end_encode(batch.column("shard"))
        for found, stop in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            if held and found != path:
                yield path, _joined(held)
                held = []
            path = found
            held.append(batch.slice(start, stop - start))
            start = stop
    if held:
        yield path, _joined(held)


def _joined(held: list[pa.RecordBatch]) -> pa.RecordBatch:
    return held[0] if len(held) == 1 else pa.concat_batches(held)

"""Reading the tensors of a TensorFlow 2 checkpoint without TensorFlow.

A checkpoint PREFIX is `PREFIX.index` and `PREFIX.data-SSSSS-of-NNNNN`. The index is a sorted
string table (the LevelDB format: prefix-compressed blocks, an index block, a 48-byte footer)
from tensor names to small protobuf records (`BundleEntryProto`: type, shape, shard, offset,
size, masked CRC-32C); the data files are raw little-endian values. Only float tensors are read.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # compression type, CRC
_DT_FLOAT = 1
_CRC_MASK_DELTA = 0xA282EAD8


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC_TABLE = _crc_table()


def masked_crc32c(data: bytes) -> int:
    """CRC-32C in the rotated form that LevelDB and TensorFlow store. About 0.1 µs per byte."""
    crc, table = 0xFFFFFFFF, _CRC_TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _CRC_MASK_DELTA) & 0xFFFFFFFF


@dataclass(frozen=True)
class _Entry:
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def checkpoint_prefix(path: Path) -> Path:
    """PREFIX from what a user points at: the prefix, its .index file, or a directory with one checkpoint."""
    if path.is_dir():
        found = sorted(path.glob("*.index"))
        if len(found) != 1:
            raise ValueError(f"{path} holds {len(found)} TensorFlow checkpoints (*.index); name the one to read")
        path = found[0]
    prefix = path.with_suffix("") if path.suffix == ".index" else path
    if not prefix.with_name(prefix.name + ".index").is_file():
        raise ValueError(f"no TensorFlow checkpoint at {path}: there is no {prefix.name}.index")
    return prefix


def read_tensors(prefix: Path) -> dict[str, NDArray[np.float32]]:
    """Every float tensor of the checkpoint by name. Raises ValueError naming the file on any damage."""
    index = prefix.with_name(prefix.name + ".index")
    try:
        records = dict(_table(index.read_bytes()))
        shards = dict(_fields(records.pop(b""))).get(1, 0)
        entries = {name.decode(): _entry(record) for name, record in records.items()}
    except (ValueError, IndexError, KeyError, struct.error) as broken:
        raise ValueError(f"{index} is not a readable TensorFlow checkpoint index: {broken}") from broken
    assert isinstance(shards, int)
    return {name: _tensor(prefix, shards, name, entry) for name, entry in entries.items() if entry.dtype == _DT_FLOAT}


def _tensor(prefix: Path, shards: int, name: str, entry: _Entry) -> NDArray[np.float32]:
    path = prefix.with_name(f"{prefix.name}.data-{entry.shard:05d}-of-{shards:05d}")
    if entry.size != 4 * math.prod(entry.shape):
        raise ValueError(f"{path}: {name} has {entry.size} bytes for shape {list(entry.shape)}")
    if not path.is_file():
        raise ValueError(f"{path} is missing; a TensorFlow checkpoint is its .index and all its .data files")
    with path.open("rb") as file:
        file.seek(entry.offset)
        data = file.read(entry.size)
    if len(data) != entry.size or masked_crc32c(data) != entry.crc:
        raise ValueError(f"{path} is damaged at {name} (bytes {entry.offset} to {entry.offset + entry.size})")
    return np.frombuffer(data, "<f4").reshape(entry.shape)


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Key-value pairs of a sorted string table in order."""
    if len(data) < _FOOTER_BYTES or struct.unpack("<Q", data[-8:])[0] != _MAGIC:
        raise ValueError("wrong magic number")
    position = len(data) - _FOOTER_BYTES
    for _ in range(2):  # handle of the metaindex block, unused
        _, position = _varint(data, position)
    for _, handle in _block(data, *_handle(data, position)):
        yield from _block(data, *_handle(handle, 0))


def _handle(data: bytes, position: int) -> tuple[int, int]:
    offset, position = _varint(data, position)
    size, _ = _varint(data, position)
    return offset, size


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Entries of one block: shared prefix length, rest length, value length, rest of the key, value."""
    block = data[offset : offset + size]
    compression, crc = struct.unpack("<BI", data[offset + size : offset + size + _TRAILER_BYTES])
    if masked_crc32c(data[offset : offset + size + 1]) != crc:
        raise ValueError(f"block at byte {offset} fails its checksum")
    if compression != 0:
        raise ValueError("its blocks are compressed, which TensorFlow does not do")
    restarts = struct.unpack("<I", block[-4:])[0]
    end, position, key = len(block) - 4 * (restarts + 1), 0, b""
    while position < end:
        shared, position = _varint(block, position)
        rest, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + rest]
        position += rest
        yield key, block[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protobuf message; fixed-width values as integers."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, position = _varint(message, position)
        else:
            size = {1: 8, 5: 4}.get(kind)
            if size is None:
                size, position = _varint(message, position)
            raw = message[position : position + size]
            value = raw if kind == 2 else int.from_bytes(raw, "little")
            position += size
        yield tag >> 3, value


def _entry(record: bytes) -> _Entry:
    numbers = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0}
    shape: list[int] = []
    for field, value in _fields(record):
        if field == 2:
            assert isinstance(value, bytes)
            dimensions = [
                dict(_fields(one)) for number, one in _fields(value) if number == 2 and isinstance(one, bytes)
            ]
            shape = [int(dimension.get(1, 0)) for dimension in dimensions]
        elif field in numbers:
            assert isinstance(value, int)
            numbers[field] = value
    return _Entry(numbers[1], tuple(shape), numbers[3], numbers[4], numbers[5], numbers[6])

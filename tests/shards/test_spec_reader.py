"""A reader written from shards/README.md alone, in the standard library plus zstandard: does the page say enough?"""

from __future__ import annotations

import json
import struct
import tarfile
from pathlib import Path

import numpy as np
import zstandard

from shards.reader import ShardSet


def stranger_reads_flow(member: bytes) -> tuple[list[list[list[int]]], float]:
    """Values [2][H][W] and quantum, with plain loops over the words of the specification."""
    content = zstandard.ZstdDecompressor().decompress(member)
    magic, height, width, exponent, channels, reserved, escapes = struct.unpack("<4sHHbBHI", content[:16])
    assert (magic, channels, reserved) == (b"FFL1", 2, 0)
    pixels = content[16 : 16 + height * width]
    high = content[16 + height * width :][:escapes]
    low = content[16 + height * width + escapes :][:escapes]
    residuals, taken = [], 0
    for shift in (0, 4):
        plane = []
        for byte in pixels:
            nibble = (byte >> shift) & 15
            value = nibble - 16 if nibble >= 8 else nibble
            if value == -8:
                value = struct.unpack("<h", bytes([low[taken], high[taken]]))[0]
                taken += 1
            plane.append(value)
        residuals.append(plane)
    assert taken == escapes
    values = []
    for plane in residuals:
        v = [[0] * width for _ in range(height)]
        for x in range(width):
            for y in range(height):
                left = v[y][x - 1] if x else 0
                up = v[y - 1][x] if y else 0
                corner = v[y - 1][x - 1] if x and y else 0
                total = (plane[x * height + y] + left + up - corner) & 0xFFFF
                v[y][x] = total - 0x10000 if total >= 0x8000 else total
        values.append(v)
    return values, 2.0**exponent


def test_a_stranger_reads_every_flow(shard_set: Path) -> None:
    manifest = json.loads((shard_set / "manifest.json").read_text())
    ours = ShardSet(shard_set)
    where = {key: i for i, key in enumerate(ours.keys)}
    read = 0
    for shard in manifest["shards"]:
        with tarfile.open(shard_set / shard["path"]) as tar:
            for member in tar:
                key, suffix = member.name.split(".", 1)
                if not suffix.endswith(".flow"):
                    continue
                stream = tar.extractfile(member)
                assert stream is not None
                values, quantum = stranger_reads_flow(stream.read())
                offset = int(suffix[1:-5]) * (1 if suffix[0] == "p" else -1)
                sample = ours.read(where[key], ours.offsets.index(offset))
                assert np.array_equal(values, sample.flow_chw) and quantum == sample.quantum_px
                read += 1
    assert read == 28

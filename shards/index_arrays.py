"""The samples of a set as arrays: what `shards.index` fills and `shards.reader` looks samples up in.

About 100 bytes per sample; none of them is a Python object, so processes that are forked afterwards share all of it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

BATCH_ROWS = 1 << 16


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
    of members, 0 where there is none; status [n, K]: position in PAIR_STATUS; optional: list of structs per row."""

    keys: Keys
    video: Names
    pass_index: NDArray[np.int16]
    frame: NDArray[np.int32]
    shard: NDArray[np.int32]
    image: NDArray[Any]
    json: NDArray[Any]
    flow: NDArray[Any]
    status: NDArray[np.uint8]
    optional: pa.Array


@dataclass(frozen=True)
class Deviations:
    """Of the stored flows: quantum_exponent [n, K]; std_px [n, K, 2], of dx and dy, pixels."""

    quantum_exponent: NDArray[np.int8]
    std_px: NDArray[np.float32]

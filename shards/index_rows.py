"""Batches of rows of index.parquet → the arrays of an index, checked row by row without a Python object for any.

What a reader relies on is checked here, once: rows name shards of the manifest, keys are those that format 1 gives them, members lie
inside their shards. Rows come from `shards.index`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shards import schema
from shards.index_arrays import Index
from shards.schema import Manifest

MEMBER = ("offset", "size", "crc32")
_DIGITS = 4
"""Of a sample's position at the end of its key."""


class WrongRow(ValueError):
    """What a batch has that format 1 does not allow; begins with a verb."""


def heads_of(manifest: Manifest) -> pa.Array:
    """What keys begin with, per shard: chunk, pass, and the dash before the position."""
    places = (schema.shard_place(info.path) for info in manifest.shards)
    return pa.array([schema.sample_key(chunk, pass_index, 0)[:-_DIGITS] for chunk, pass_index in places], pa.string())


class IndexRows:
    """Takes batches into an index. videos: distinct names so far, in the order of their first sample."""

    def __init__(self, index: Index, manifest: Manifest, bytes_of: NDArray[np.int64], width: int) -> None:
        self.index, self.bytes_of, self.width = index, bytes_of, width
        self.paths = pa.array([info.path for info in manifest.shards], pa.string())
        self.optional: list[pa.Array] = []
        self.videos: pa.Array = pa.array([], pa.string())
        self._code_of: dict[str, int] = {}
        heads = [head.encode() for head in index.keys.distinct.to_pylist()]
        self._head_bytes = max(map(len, heads), default=0)
        alike = all(len(head) == self._head_bytes for head in heads)
        self._heads = np.frombuffer(b"".join(heads), np.uint8).reshape(len(heads), -1) if alike and heads else None
        # The samples of a video lie at one position of one chunk, pass after pass: where its name is looked for first.
        chunks = {
            chunk: n for n, chunk in enumerate(dict.fromkeys(schema.shard_place(i.path)[0] for i in manifest.shards))
        }
        self._chunk_of = np.array([chunks[schema.shard_place(i.path)[0]] for i in manifest.shards], np.int64)
        most = 1 + 2 * len(index.frame) // max(1, len(chunks))  # positions, on average; others are looked up
        self._code_at = np.full((max(1, len(chunks)), min(most, manifest.settings.chunk_videos)), -1, np.int32)

    def add(self, table: pa.Table, rows: slice) -> None:
        column = {name: table.column(name).combine_chunks() for name in table.column_names}
        for name, values in column.items():
            if values.null_count:
                raise WrongRow(f"has an empty field in column {name!r}")
        index, keys = self.index, column["key"]
        shard = index.shard[rows] = self._shards(column["shard"])
        position = index.keys.position[rows] = self._positions(keys, shard)
        index.video.codes[rows] = self._video_codes(column["video"], self._chunk_of[shard], position)
        index.pass_index[rows], index.frame[rows] = column["pass"].to_numpy(), column["frame"].to_numpy()
        ends = self.bytes_of[shard]
        for name, target in (("image", index.image), ("json", index.json)):
            parts = [column[f"{name}_{c}"].to_numpy() for c in MEMBER]
            _check_inside(name, parts[0], parts[1], ends, keys)
            for c, part in enumerate(parts):
                target[rows, c] = part
        parts = [lists(column[f"flow_{c}"], self.width) for c in MEMBER]
        _check_inside("flow", parts[0], parts[1], ends[:, None], keys)
        for c, part in enumerate(parts):
            index.flow[rows, :, c] = part
        index.status[rows] = self._statuses(column["status"])
        optional = column["optional_members"]
        members = optional.flatten()
        if len(members):
            of = pc.list_parent_indices(optional).to_numpy()
            found = [members.field(c).to_numpy(zero_copy_only=False).astype(np.int64) for c in MEMBER]
            _check_inside("optional", found[0], found[1], ends[of], keys.take(pa.array(of)))
        self.optional.append(optional)

    def _shards(self, paths: pa.Array) -> NDArray[np.int32]:
        codes = pc.index_in(paths, value_set=self.paths)
        if codes.null_count:
            stranger = paths.filter(codes.is_null())[0].as_py()
            raise WrongRow(f"names the shard {stranger!r}, which the manifest does not list")
        return np.asarray(codes.to_numpy(), np.int32)

    def _positions(self, keys: pa.Array, shard: NDArray[np.int32]) -> NDArray[np.int16]:
        found = self._plain_positions(keys, shard)
        if found is not None:
            return found
        digits = pc.utf8_slice_codeunits(keys, -_DIGITS)
        made = pc.binary_join_element_wise(self.index.keys.distinct.take(pa.array(shard)), digits, "")
        wrong = pc.invert(pc.and_(pc.equal(made, keys), pc.match_substring_regex(digits, "^[0-9]{4}$")))
        if pc.any(wrong).as_py():
            raise WrongRow(f"has the key {keys.filter(wrong)[0].as_py()!r} in a shard whose keys are others")
        return np.asarray(pc.cast(digits, pa.int16()).to_numpy(), np.int16)

    def _plain_positions(self, keys: pa.Array, shard: NDArray[np.int32]) -> NDArray[np.int16] | None:
        """Where all keys have one length, as they have below a million chunks, their bytes are compared as an array, ten times as fast.
        None where they have not, or one is wrong."""
        _, ends, data = keys.buffers()
        if self._heads is None or data is None or not len(keys):
            return None
        ends = np.frombuffer(ends, np.int32)[keys.offset : keys.offset + len(keys) + 1]
        if (np.diff(ends) != self._head_bytes + _DIGITS).any():
            return None
        text = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]].reshape(len(keys), -1)
        digits = text[:, self._head_bytes :] - np.uint8(ord("0"))  # what is less wraps around
        if (text[:, : self._head_bytes] != self._heads[shard]).any() or (digits > 9).any():
            return None
        return digits.astype(np.int16) @ np.array([1000, 100, 10, 1], np.int16)

    def _video_codes(
        self, videos: pa.Array, chunk: NDArray[np.int64], position: NDArray[np.int16]
    ) -> NDArray[np.int32]:
        """A name is compared with the one that the last pass had there; only others are looked up."""
        width = self._code_at.shape[1]
        codes = np.where(position < width, self._code_at[chunk, np.minimum(position, width - 1)], -1).astype(np.int32)
        if len(self.videos):
            guessed = self.videos.take(pa.array(np.maximum(codes, 0)))
            codes[~pc.equal(guessed, videos).to_numpy(zero_copy_only=False)] = -1
        others = np.flatnonzero(codes < 0)
        if len(others):
            fresh: list[str] = []
            for row, name in zip(others.tolist(), videos.take(pa.array(others)).to_pylist(), strict=True):
                code = codes[row] = self._code_of.setdefault(name, len(self._code_of))
                if code == len(self.videos) + len(fresh):
                    fresh.append(name)
            self.videos = pa.concat_arrays([self.videos, pa.array(fresh, pa.string())])
            others = others[position[others] < width]
            self._code_at[chunk[others], position[others]] = codes[others]
        return codes

    def _statuses(self, column: pa.Array) -> NDArray[np.uint8]:
        names = column.flatten()
        codes = pc.index_in(names, value_set=pa.array(schema.PAIR_STATUS))
        if codes.null_count:
            stranger = names.filter(codes.is_null())[0].as_py()
            raise WrongRow(f"holds the pair status {stranger!r}; format 1 knows {', '.join(schema.PAIR_STATUS)}")
        return np.asarray(codes.to_numpy().astype(np.uint8)).reshape(-1, self.width)


def _check_inside(what: str, offset: NDArray[Any], size: NDArray[Any], ends: NDArray[np.int64], keys: pa.Array) -> None:
    """All members of these offsets and sizes must lie inside their shards of `ends` bytes."""
    offset = offset.astype(np.int64, copy=False)
    wrong = (offset < 0) | (size < 0) | (size > ends - offset)
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        raise WrongRow(f"says that {what} of {keys[row].as_py()} lies outside its shard")


def lists(column: pa.Array, width: int) -> NDArray[Any]:
    """Values of a column of lists [rows, width]; 0 for whole numbers that are not there."""
    flat = column.flatten()
    if pa.types.is_integer(flat.type) and flat.null_count:
        flat = flat.fill_null(0)
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(-1, width)

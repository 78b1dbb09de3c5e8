"""A shard set on disk or in remote storage → samples, by index and offset. (As a plain webdataset stream: `shards.stream`.)

Where data comes from: what stage 1 wrote, through `shards.storage`. Where it goes: the training loop. The index is
authoritative: every member is read by offset and checked against its CRC before it is decoded, so damage
becomes a SampleError that names the sample, never a wrong image or a wrong flow.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shards import schema
from shards.blocks import Block, BlockFolder, block_numbers
from shards.codec import FlowCodecError, decode_flow
from shards.sample import Buffers, OptionalMember, Sample, StoredMember, decode_confidence, decode_image
from shards.schema import Manifest, SampleError, ShardSetError, read_manifest
from shards.storage import Folder, Patience, inside, is_url, open_folder

__all__ = ["Sample", "SampleError", "ShardSet", "ShardSetError", "decode_image"]


def read_table(root: Path | str, name: str, manifest: Manifest, folder: Folder | None = None) -> pa.Table:
    """A parquet file of the set, compared with its digest in the manifest. ShardSetError where it differs or is missing."""
    path = inside(root, name)
    try:
        data = (folder or open_folder(root)).read(name)
    except OSError as error:
        raise ShardSetError(
            f"{path} cannot be read ({error.strerror}); rerun the extraction command to rebuild it"
        ) from error
    expected = manifest.files.get(name, {}).get("sha256")
    if hashlib.sha256(data).hexdigest() != expected:
        raise ShardSetError(
            f"{path} does not match the manifest: the set is being written, or the file is damaged; "
            "wait for the extraction, or rerun its command to rebuild the file"
        )
    return pq.read_table(io.BytesIO(data))


def _list_column(table: pa.Table, name: str, width: int) -> NDArray[Any]:
    column = table.column(name).combine_chunks()
    flat = column.flatten() if len(column) else pa.array([], column.type.value_type)
    if pa.types.is_integer(flat.type):
        flat = flat.fill_null(0)
    return flat.to_numpy(zero_copy_only=False).reshape(-1, width)


def _status_codes(table: pa.Table, width: int) -> NDArray[np.uint8]:
    """Positions in PAIR_STATUS, one byte per pair: as strings a large set's statuses would take gigabytes."""
    names = table.column("status").combine_chunks().flatten() if table.num_rows else pa.array([], pa.string())
    codes = pc.index_in(names, value_set=pa.array(schema.PAIR_STATUS))
    if codes.null_count:
        unknown = sorted(set(names.to_pylist()) - set(schema.PAIR_STATUS))
        raise ShardSetError(
            f"{schema.INDEX} holds the pair status {unknown[0]!r}; format 1 knows {', '.join(schema.PAIR_STATUS)}"
        )
    return codes.to_numpy().astype(np.uint8).reshape(-1, width)


class ShardSet:
    """Random access to the samples of a set.

    root: directory of the set, or an address that fsspec opens. allow_partial: open a set in which chunks are still missing.
    block_samples: how many consecutive samples of a shard make a block (`block`); blocks that are expected are fetched from remote
    storage whole. patience: with that storage. Raises ShardSetError when the set is missing, incomplete, damaged, or of another
    format version, ValueError when an address needs a package that is not installed.

    place: root as given. keys[i], video[i]: names; pass_index[i]: pass; block[i]: number of its block, from 0, all 0 without blocks;
    quantum_exponent[i, k], std_px[i, k, 2]: the neighbours.
    Safe to hand to other processes: files are opened per process, on first use.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        allow_partial: bool = False,
        block_samples: int = 0,
        patience: Patience | None = None,
    ) -> None:
        self.place = str(root)
        self._folder = open_folder(root, patience)
        self.manifest = read_manifest(root, self._folder)
        if not self.manifest.complete and not allow_partial:
            have, want = len(self.manifest.shards), self.manifest.chunks * self.manifest.passes
            raise ShardSetError(
                f"the set at {self.place} has {have} of {want} shards: it is being written or was interrupted; "
                "rerun the extraction command to finish it, or open it with allow_partial"
            )
        table = read_table(root, schema.INDEX, self.manifest, self._folder)
        self.offsets = self.manifest.settings.offsets
        width = len(self.offsets)
        self.keys: list[str] = table.column("key").to_pylist()
        self.video: list[str] = table.column("video").to_pylist()
        self.pass_index: NDArray[np.int16] = table.column("pass").to_numpy()
        self.frame: NDArray[np.int32] = table.column("frame").to_numpy()
        shard = table.column("shard").combine_chunks().dictionary_encode()
        self.shards: list[str] = shard.dictionary.to_pylist()
        self._shard: NDArray[np.int32] = shard.indices.to_numpy()
        self._image = np.stack([table.column(f"image_{c}").to_numpy() for c in ("offset", "size", "crc32")], axis=1)
        self._json = np.stack([table.column(f"json_{c}").to_numpy() for c in ("offset", "size", "crc32")], axis=1)
        self._flow = np.stack(
            [_list_column(table, f"flow_{c}", width).astype(np.int64) for c in ("offset", "size", "crc32")], axis=2
        )
        self._optional: pa.Array = table.column("optional_members").combine_chunks()
        self._status = _status_codes(table, width)
        self.quantum_exponent = _list_column(table, "quantum_exponent", width)
        self.std_px = np.stack([_list_column(table, f"std_{c}_px", width) for c in ("dx", "dy")], axis=2)
        self.trainable_mask: NDArray[np.bool_] = self._status == schema.PAIR_STATUS.index(schema.STORED)
        self.block: NDArray[np.int64] = np.zeros(len(self.keys), np.int64)
        if block_samples:
            self.block = block_numbers(self._shard, block_samples)
        if not is_url(root):
            self._check_sizes()
        elif block_samples:
            self._folder = BlockFolder(self._folder)

    @property
    def root(self) -> Path:
        """The folder of a local set. ShardSetError for one in remote storage, which has only a `place`."""
        if is_url(self.place):
            raise ShardSetError(f"the set at {self.place} is not in a local folder: copy it to one for this")
        return Path(self.place)

    def _check_sizes(self) -> None:
        """Local sets only: asking remote storage for every shard would take a request each. What is read is checked anyway."""
        root = self.root
        for info in self.manifest.shards:
            path = root / info.path
            found = path.stat().st_size if path.is_file() else None
            if found != info.bytes:
                what = (
                    "is missing"
                    if found is None
                    else f"has {found} bytes, {info.bytes} expected: it is truncated or was replaced"
                )
                raise ShardSetError(
                    f"shard {path} {what}; delete {root / schema.RECORDS / info.path.replace('.tar', '.parquet')} "
                    "and rerun the extraction command to redo it"
                )

    def __len__(self) -> int:
        return len(self.keys)

    def trainable(self, i: int) -> tuple[int, ...]:
        """Positions in `offsets` whose flow is stored and above the noise floor."""
        return tuple(np.flatnonzero(self.trainable_mask[i]).tolist())

    def shard_of(self, i: int) -> str:
        """Path of the shard that holds sample i, inside the set."""
        return self.shards[int(self._shard[i])]

    def members(self, i: int) -> list[StoredMember]:
        """Every member of sample i that the index lists, optional and unknown ones included."""
        found = [StoredMember("jpg", *self._image[i].tolist()), StoredMember("json", *self._json[i].tolist())]
        for k, offset in enumerate(self.offsets):
            if self._flow[i, k, 1]:
                found.append(StoredMember(f"{schema.offset_label(offset)}.flow", *self._flow[i, k].tolist()))
        return found + [StoredMember(**member) for member in self._optional[i].as_py() or ()]

    def stored_mask(self, member: OptionalMember) -> NDArray[np.bool_]:
        """bool [samples, K]: for which neighbours of which samples an optional member is stored."""
        rows = pc.list_parent_indices(self._optional).to_numpy()
        names = self._optional.flatten().field("name")
        mask = np.zeros((len(self), len(self.offsets)), bool)
        for k, offset in enumerate(self.offsets):
            equal = pc.equal(names, _optional_name(member, offset)).to_numpy(zero_copy_only=False)
            mask[rows[equal.astype(bool)], k] = True
        return mask

    def status(self, i: int, k: int) -> str:
        """What became of neighbour k of sample i: one of schema.PAIR_STATUS."""
        return schema.PAIR_STATUS[self._status[i, k]]

    def expect(self, blocks: Sequence[int] | NDArray[np.int64]) -> None:
        """These blocks are read next: fetch them from remote storage, in this order, and let go of all others."""
        if isinstance(self._folder, BlockFolder):
            self._folder.expect([self._block_range(int(number)) for number in blocks])

    def _block_range(self, number: int) -> Block:
        """From the first sample's image to the last one's JSON, which is how samples are written."""
        first, after = np.searchsorted(self.block, (number, number + 1)).tolist()
        start, stop = int(self._image[first, 0]), int(self._json[after - 1, :2].sum())
        return Block(self.shard_of(first), start, stop)

    def member_bytes(self, i: int, member: StoredMember) -> bytes:
        """A member of sample i, checked. Raises SampleError on damage."""
        name, offset, size, crc32 = member
        return self._member(i, name, offset, size, crc32)

    def _member(self, i: int, what: str, offset: int, size: int, crc32: int) -> bytes:
        shard = int(self._shard[i])
        try:
            data = self._folder.read_range(self.shards[shard], offset, size)
        except OSError as error:
            raise SampleError(f"{self.keys[i]}.{what} in {self.shards[shard]}: {error.strerror}") from error
        if len(data) != size or zlib.crc32(data) != crc32:
            found = f"{len(data)} of {size} bytes" if len(data) != size else "its CRC-32 does not match the index"
            raise SampleError(f"{self.keys[i]}.{what} in {self.shards[shard]} is damaged: {found}")
        return data

    def image_bytes(self, i: int) -> bytes:
        """The anchor's JPEG, checked."""
        return self._member(i, "jpg", *self._image[i].tolist())

    def json(self, i: int) -> dict[str, Any]:
        """The sample's `.json` member, checked."""
        parsed: dict[str, Any] = json.loads(self._member(i, "json", *self._json[i].tolist()))
        return parsed

    def flow_bytes(self, i: int, k: int) -> bytes:
        """The `.flow` member of neighbour k, checked. Raises SampleError when that pair was not stored."""
        offset, size, crc32 = self._flow[i, k].tolist()
        if size == 0:
            raise SampleError(f"{self.keys[i]} holds no flow for offset {self.offsets[k]}: {self.status(i, k)}")
        return self._member(i, f"{schema.offset_label(self.offsets[k])}.flow", offset, size, crc32)

    def optional_bytes(self, i: int, k: int, member: OptionalMember) -> bytes:
        """The JPEG of neighbour k's frame or of its flow's confidence, checked. SampleError where the set does not hold it."""
        name = _optional_name(member, self.offsets[k])
        for stored in self._optional[i].as_py() or ():
            if stored["name"] == name:
                return self.member_bytes(i, StoredMember(**stored))
        raise SampleError(f"{self.keys[i]} holds no {name}: extraction was not told to keep it, or had none to keep")

    def read(self, i: int, k: int, *, optional: Collection[OptionalMember] = ()) -> Sample:
        """Sample i with the flow to neighbour k, and the optional members that are asked for.

        Raises SampleError naming the member and its shard on any damage, IndexError when i or k is out of range.
        """
        image, flow = self.manifest.settings.image_size, self.manifest.settings.flow_size
        out = Buffers(
            np.empty((image, image, 3), np.uint8),
            np.empty((2, flow, flow), np.int16),
            np.empty((image, image, 3), np.uint8) if "neighbour" in optional else None,
            np.empty((flow, flow), np.uint8) if "confidence" in optional else None,
        )
        quantum_px = self.read_into(i, k, out)
        assert out.image_hwc is not None and out.flow_chw is not None
        return Sample(
            self.keys[i], out.image_hwc, out.flow_chw, quantum_px, self.offsets[k], out.neighbour_hwc, out.confidence_hw
        )

    def read_into(self, i: int, k: int, out: Buffers) -> float:
        """Decode the members of sample i, neighbour k, for which there is a buffer; returns the flow's quantum in pixels
        (0 where no flow was asked for). Raises as `read`."""
        settings, quantum_px = self.manifest.settings, 0.0
        try:
            if out.image_hwc is not None:
                decode_image(self.image_bytes(i), settings.image_size, out.image_hwc)
            if out.flow_chw is not None:
                size = (settings.flow_size, settings.flow_size)
                quantum_px = decode_flow(self.flow_bytes(i, k), size, out.flow_chw).quantum_px
            if out.neighbour_hwc is not None:
                decode_image(self.optional_bytes(i, k, "neighbour"), settings.image_size, out.neighbour_hwc)
            if out.confidence_hw is not None:
                decode_confidence(self.optional_bytes(i, k, "confidence"), settings.flow_size, out.confidence_hw)
        except (FlowCodecError, ValueError) as error:
            if isinstance(error, SampleError):
                raise
            raise SampleError(f"{self.keys[i]} in {self.shard_of(i)}: {error}") from error
        return quantum_px


def _optional_name(member: OptionalMember, offset: int) -> str:
    return f"{schema.offset_label(offset)}.{'jpg' if member == 'neighbour' else 'conf.jpg'}"

"""A shard set on disk or in remote storage → samples, by index and offset. (As a plain webdataset stream: `shards.stream`.)

Where data comes from: what stage 1 wrote, through `shards.storage`. Where it goes: the training loop. The index is
authoritative: every member is read by offset and checked against its CRC before it is decoded, so damage
becomes a SampleError that names the sample, never a wrong image or a wrong flow.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shards import schema
from shards.blocks import Block, BlockFolder, block_numbers
from shards.codec import DecodedFlow, FlowCodecError, decode_flow
from shards.files import plain_size
from shards.index import read_deviations, read_index, read_table
from shards.index_arrays import Deviations
from shards.sample import (
    OPTIONAL_MEMBERS,
    Buffers,
    OptionalMember,
    Sample,
    StoredMember,
    decode_confidence,
    decode_image,
    optional_name,
)
from shards.schema import SampleError, ShardSetError, read_manifest
from shards.storage import Folder, Patience, is_url, open_folder

__all__ = ["Sample", "SampleError", "ShardSet", "ShardSetError", "decode_image", "read_table"]


class ShardSet:
    """Random access to the samples of a set.

    root: directory of the set, or an address that fsspec opens. allow_partial: open a set in which chunks are still missing.
    block_samples: how many consecutive samples of a shard make a block (`block`); blocks that are expected are fetched from remote
    storage whole. patience: with that storage. Raises ShardSetError when the set is missing, incomplete, damaged, or of another
    format version, ValueError when an address needs a package that is not installed.

    place: root as given. keys[i], video[i]: names; shard_codes[i]: position in shards; pass_index[i]: pass; block[i]: number of
    its block, from 0, all 0 without blocks.
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
        self._folder = self._tables = open_folder(root, patience)
        self.manifest = read_manifest(root, self._folder)
        if not self.manifest.complete and not allow_partial:
            have, want = len(self.manifest.shards), self.manifest.chunks * self.manifest.passes
            raise ShardSetError(
                f"the set at {self.place} has {have} of {want} shards: it is being written or was interrupted; "
                "rerun the extraction command to finish it, or open it with allow_partial"
            )
        index = read_index(root, self.manifest, self._folder)
        self.offsets = self.manifest.settings.offsets
        self.keys = index.keys
        self.video = index.video
        self.pass_index, self.frame = index.pass_index, index.frame
        self.shards: list[str] = [info.path for info in self.manifest.shards]
        self.shard_codes, self._image, self._json, self._flow = index.shard, index.image, index.json, index.flow
        self._optional, self._status = index.optional, index.status
        self.block: NDArray[np.int64] = np.zeros(len(self.keys), np.int64)
        if block_samples:
            self.block = block_numbers(self.shard_codes, block_samples)
        if not is_url(root):
            self._check_sizes()
        elif block_samples:
            self._folder = BlockFolder(self._folder)

    @cached_property
    def _deviations(self) -> Deviations:
        return read_deviations(self.place, self.manifest, self._tables)

    @property
    def quantum_exponent(self) -> NDArray[np.int8]:
        """[samples, K], read from the index when first asked for. ShardSetError where that is another by then; so for std_px."""
        return self._deviations.quantum_exponent

    @property
    def std_px(self) -> NDArray[np.float32]:
        """[samples, K, 2]: standard deviation of dx and dy of the stored flows, pixels."""
        return self._deviations.std_px

    @property
    def root(self) -> Path:
        """The folder of a local set. ShardSetError for one in remote storage, which has only a `place`."""
        if is_url(self.place):
            raise ShardSetError(f"the set at {self.place} is not in a local folder: copy it to one for this")
        return Path(self.place)

    def read_shards_from(self, folder: Folder) -> None:
        """Read members from another place from now on, which holds the same shards or those that will be asked for."""
        self._folder = folder

    def _check_sizes(self) -> None:
        """Local sets only: asking remote storage for every shard would take a request each. What is read is checked anyway."""
        root, home = self.root, self.root.resolve()
        folders = {info.path.split("/")[0] for info in self.manifest.shards}
        plain = {folder for folder in folders if not (root / folder).is_symlink()}
        for info in self.manifest.shards:
            path = root / info.path
            if info.path.split("/")[0] in plain and plain_size(path) == info.bytes:
                continue
            found = path.stat().st_size if path.is_file() else None
            if found is None and path.exists():
                raise ShardSetError(f"shard {path} is no regular file; put the shard there, or delete it and rerun")
            if found is not None and not path.resolve().is_relative_to(home):
                raise ShardSetError(f"shard {path} lies outside its set, at {path.resolve()}; copy it there")
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

    @property
    def trainable_mask(self) -> NDArray[np.bool_]:
        """bool [samples, K]: which flows are stored and above the noise floor."""
        return self._status == schema.PAIR_STATUS.index(schema.STORED)

    def rows_by_shard(self) -> dict[str, NDArray[np.int64]]:
        """Shard → its samples, in the order of the index; every row is looked at once."""
        order = np.argsort(self.shard_codes, kind="stable")
        edges = np.searchsorted(self.shard_codes[order], np.arange(len(self.shards) + 1))
        return {shard: order[edges[n] : edges[n + 1]] for n, shard in enumerate(self.shards)}

    def trainable(self, i: int) -> tuple[int, ...]:
        """Positions in `offsets` whose flow is stored and above the noise floor."""
        return tuple(np.flatnonzero(self._status[i] == schema.PAIR_STATUS.index(schema.STORED)).tolist())

    def shard_of(self, i: int) -> str:
        """Path of the shard that holds sample i, inside the set."""
        return self.shards[int(self.shard_codes[i])]

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
            mask[
                rows[pc.equal(names, optional_name(member, offset)).to_numpy(zero_copy_only=False).astype(bool)], k
            ] = True
        return mask

    def kept(self) -> dict[OptionalMember, tuple[int, int]]:
        """What the set holds beside images and flow: of every kind of optional member how many there are, and their bytes."""
        members = self._optional.flatten()
        names, sizes = members.field("name"), members.field("size")
        found = dict[OptionalMember, tuple[int, int]]()
        for kind in OPTIONAL_MEMBERS:
            wanted = [optional_name(kind, offset) for offset in self.offsets]
            of_kind = sizes.filter(pc.is_in(names, value_set=pa.array(wanted, pa.string())))
            found[kind] = (len(of_kind), pc.sum(of_kind, min_count=0).as_py())
        return found

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
        shard = int(self.shard_codes[i])
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
        """An optional member of neighbour k as it is stored, checked. SampleError where the set does not hold it."""
        name = optional_name(member, self.offsets[k])
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
        back = self.reverse(i, k) if "reverse" in optional else None
        return Sample(
            self.keys[i],
            out.image_hwc,
            out.flow_chw,
            quantum_px,
            self.offsets[k],
            out.neighbour_hwc,
            out.confidence_hw,
            back,
        )

    def reverse(self, i: int, k: int) -> DecodedFlow:
        """Flow from neighbour k back to the anchor: [2, F, F] int16 on the neighbour's grid, with its quantum. Raises as `read`."""
        size = (self.manifest.settings.flow_size, self.manifest.settings.flow_size)
        try:
            return decode_flow(self.optional_bytes(i, k, "reverse"), size)
        except FlowCodecError as error:
            raise SampleError(f"{self.keys[i]} in {self.shard_of(i)}: {error}") from error

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

"""One or several shard sets, read as one.

The places that a config names come in; samples go out, numbered through set after set. The columns of neighbours are the offsets
that any of the sets stores; a set that lacks one has nothing there. What the sets must agree on (sizes of frames and flow, since a
batch holds samples of all of them) is checked here; flow estimators, quality and passes may differ.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shards.reader import ShardSet
from shards.sample import Buffers, OptionalMember
from shards.schema import SampleError
from shards.storage import Patience, is_url
from trainer.config_sections import DataConfig

URL_BLOCK_SAMPLES = 64
REQUEST_SHARE = 0.1
"""Share of data.timeout_s that one request to remote storage may take: several attempts fit into a worker's silence."""


@dataclass(frozen=True)
class SetFacts:
    """What the log says of one set: its index's digest names it wherever it lies."""

    place: str
    index_sha256: str
    samples: int
    trained: int


def open_sets(data: DataConfig) -> ShardSets:
    """The sets of data.shards. ShardSetError where one cannot be trusted, ValueError where they do not go together."""
    if not data.sets:
        raise ValueError("no shard set given: set data.shards (--shards DIR; make extract-flow creates one)")
    doubled = next((place for n, place in enumerate(data.sets) if place in data.sets[:n]), None)
    if doubled is not None:
        raise ValueError(f"data.shards names {doubled} twice: to see it more often, set data.weights")
    block_samples = data.block_samples or (URL_BLOCK_SAMPLES if any(is_url(place) for place in data.sets) else 0)
    patience = Patience(timeout_s=REQUEST_SHARE * data.timeout_s)
    opened = [
        ShardSet(place, allow_partial=data.allow_partial, block_samples=max(block_samples, 0), patience=patience)
        for place in data.sets
    ]
    return ShardSets(opened, weights=data.weights, window_blocks=data.window_blocks if block_samples > 0 else 0)


class ShardSets:
    """offsets: neighbours in the order of their columns; image_size, flow_size: pixels; sizes: samples of each set;
    window_blocks: 0 where samples are not read in blocks."""

    def __init__(self, sets: Sequence[ShardSet], *, weights: Sequence[float] = (), window_blocks: int = 0) -> None:
        self.sets, self.window_blocks = tuple(sets), window_blocks
        self.weights = tuple(weights) if len(sets) > 1 else ()  # a single set's is the whole
        first = sets[0].manifest.settings
        for other in sets[1:]:
            for name in ("image_size", "flow_size"):
                mine, theirs = getattr(first, name), getattr(other.manifest.settings, name)
                if mine != theirs:
                    raise ValueError(
                        f"the sets at {sets[0].place} and {other.place} cannot be trained on together: {name} is {mine} in one and "
                        f"{theirs} in the other; extract one again with the other's"
                    )
        self.image_size, self.flow_size = first.image_size, first.flow_size
        self.offsets = tuple(dict.fromkeys(offset for one in sets for offset in one.offsets))
        self._columns = [
            [one.offsets.index(offset) if offset in one.offsets else -1 for offset in self.offsets] for one in sets
        ]
        self.sizes = [len(one) for one in sets]
        self._starts = np.cumsum([0, *self.sizes]).tolist()

    @classmethod
    def of(cls, shards: ShardSet | ShardSets) -> ShardSets:
        """A single set as one of these."""
        return shards if isinstance(shards, ShardSets) else cls([shards])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def place(self) -> str:
        """Where the sets lie, for messages."""
        return " and ".join(one.place for one in self.sets)

    @property
    def identity(self) -> str:
        """Digests of the indices, and how samples are grouped: runs with the same one see the same samples in the same order."""
        digests = "+".join(_index_digest(one) for one in self.sets)
        return f"{digests}, {self.window_blocks} blocks of {self.longest_block}" if self.window_blocks else digests

    @property
    def held_mib(self) -> float:
        """Most memory that blocks from remote storage take: those of one window and of the next, shared out among a rank's workers.

        A block counts with as many samples as the largest one, a sample with the mean of the set with the largest ones; 0 where
        no set is remote or none is read in blocks.
        """
        remote = [one for one in self.sets if is_url(one.place) and len(one)]
        mean = max((sum(info.bytes for info in one.manifest.shards) / len(one) for one in remote), default=0)
        blocks = min(2 * self.window_blocks, sum(int(one.block[-1]) + 1 for one in remote))
        return blocks * self.longest_block * mean / 2**20

    @cached_property
    def longest_block(self) -> int:
        """Samples of the largest block."""
        return max((int(np.bincount(one.block).max()) for one in self.sets if len(one)), default=0)

    def facts(self, samples: NDArray[np.int64]) -> list[SetFacts]:
        """Each set, with how many of `samples` (ascending) are its."""
        trained = np.diff(np.searchsorted(samples, self._starts)).tolist()
        return [
            SetFacts(one.place, _index_digest(one), len(one), count)
            for one, count in zip(self.sets, trained, strict=True)
        ]

    @cached_property
    def keys(self) -> Sequence[str]:
        """Names of all samples; with the set's place before them where there are several."""
        if len(self.sets) == 1:
            return self.sets[0].keys
        return [f"{one.place}: {key}" for one in self.sets for key in one.keys]

    @property
    def video(self) -> Sequence[str]:
        """Video of each sample. Sets that hold a video under the same name are taken to mean the same one."""
        return self.sets[0].video if len(self.sets) == 1 else [name for one in self.sets for name in one.video]

    @property
    def pass_index(self) -> NDArray[np.int16]:
        return np.concatenate([one.pass_index for one in self.sets])

    @property
    def blocks(self) -> NDArray[np.int64]:
        """Number of each sample's block, counted through all sets."""
        return np.concatenate([one.block + start for one, start in zip(self.sets, self._block_starts, strict=True)])

    @cached_property
    def _block_starts(self) -> list[int]:
        counts = [int(one.block[-1]) + 1 if len(one) else 0 for one in self.sets]
        return [int(start) for start in np.cumsum([0, *counts[:-1]])]

    @property
    def trainable_mask(self) -> NDArray[np.bool_]:
        """bool [samples, K]: which neighbours' flow may be trained on."""
        return self._spread([one.trainable_mask for one in self.sets])

    @property
    def std_px(self) -> NDArray[np.float64]:
        """float [samples, K, 2]: deviation of each channel of the flow, pixels; 0 where a set stores no such neighbour."""
        whole = np.zeros((len(self), len(self.offsets), 2))
        for one, columns, start in zip(self.sets, self._columns, self._starts, strict=False):
            for column, own in enumerate(columns):
                if own >= 0:
                    whole[start : start + len(one), column] = one.std_px[:, own]
        return whole

    def stored_mask(self, member: OptionalMember) -> NDArray[np.bool_]:
        """bool [samples, K]: for which neighbours of which samples an optional member is stored."""
        return self._spread([one.stored_mask(member) for one in self.sets])

    def _spread(self, masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Masks over each set's own offsets as one mask over all offsets."""
        if len(masks) == 1:
            return masks[0]
        whole = np.zeros((len(self), len(self.offsets)), bool)
        for mask, columns, start in zip(masks, self._columns, self._starts, strict=False):
            for column, own in enumerate(columns):
                if own >= 0:
                    whole[start : start + len(mask), column] = mask[:, own]
        return whole

    def read_into(self, i: int, k: int, out: Buffers, /) -> float:
        """As `ShardSet.read_into`, for sample i of all sets and column k of all offsets."""
        if len(self.sets) == 1:
            return self.sets[0].read_into(i, k, out)
        number = bisect_right(self._starts, i) - 1
        one, own = self.sets[number], self._columns[number][k]
        if own < 0:
            raise SampleError(f"{self.keys[i]}: this set stores no neighbour at offset {self.offsets[k]}")
        try:
            return one.read_into(i - self._starts[number], own, out)
        except SampleError as error:
            raise SampleError(f"{one.place}: {error}") from error

    def expect(self, blocks: NDArray[np.int64], /) -> None:
        """These blocks are read next, see `ShardSet.expect`."""
        numbers = np.searchsorted(self._block_starts, blocks, side="right") - 1
        for number, one in enumerate(self.sets):
            one.expect(blocks[numbers == number] - self._block_starts[number])


def _index_digest(shards: ShardSet) -> str:
    return str(shards.manifest.files["index.parquet"]["sha256"])

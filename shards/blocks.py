"""Consecutive samples of one shard, fetched from remote storage in one request and kept while they are being read.

The loader's workers say which blocks the next samples lie in (`expect`); the blocks come in the background, those no longer
expected are let go, and reads are answered from what is held. A read outside of them is a request of its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shards.storage import Folder, StorageError

REQUESTS_AT_ONCE = 4


class Block(NamedTuple):
    """Bytes start..stop of one file."""

    name: str
    start: int
    stop: int


def block_numbers(shard: NDArray[np.int32], samples_per_block: int) -> NDArray[np.int64]:
    """Number of the block of each sample, counted through the set, for samples in the order of the index.

    A block is at most `samples_per_block` consecutive samples of one shard.
    """
    assert samples_per_block > 0
    if not len(shard):
        return np.zeros(0, np.int64)
    begins = np.flatnonzero(np.diff(shard, prepend=shard[0] - 1))
    place = np.arange(len(shard)) - np.repeat(begins, np.diff(begins, append=len(shard)))
    return np.cumsum(place % samples_per_block == 0).astype(np.int64) - 1


class BlockFolder:
    """A folder that answers from the blocks it was told to expect. Holds those and nothing else, per process."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._held: dict[Block, Future[bytes]] = {}
        self._by_name: dict[str, list[Block]] = {}
        self._threads: ThreadPoolExecutor | None = None

    @property
    def place(self) -> str:
        return self.folder.place

    def expect(self, blocks: Sequence[Block]) -> None:
        """Fetch these, in this order, beside whatever else is done; let go of all others."""
        if self._pid != os.getpid():  # threads do not outlive a fork
            self._begin()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="blocks")
        wanted = dict.fromkeys(blocks)
        for block in [b for b in self._held if b not in wanted]:
            self._held.pop(block).cancel()
        for block in wanted:
            if block not in self._held:
                self._held[block] = self._threads.submit(
                    self.folder.read_range, block.name, block.start, block.stop - block.start
                )
        self._by_name = {}
        for block in self._held:
            self._by_name.setdefault(block.name, []).append(block)

    def read(self, name: str) -> bytes:
        return self.folder.read(name)

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        for block in self._by_name.get(name, ()):
            if block.start <= offset and offset + size <= block.stop:
                try:
                    data = self._held[block].result()
                except StorageError as error:
                    if error.missing:
                        raise
                    break  # a request of its own may still get through
                return data[offset - block.start : offset - block.start + size]
        return self.folder.read_range(name, offset, size)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]

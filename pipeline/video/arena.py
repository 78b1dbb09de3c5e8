"""Bytes that several processes share without copying them through a pipe: a file in memory that has no name.

Decoding processes write pixels into it with `write_at` and never map it, so a library that runs wild on a damaged file cannot scribble
over the frames of another video. Whoever reads maps it. It is gone when the last process that holds it ends, however that ends.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress

import numpy as np
from numpy.typing import DTypeLike, NDArray

from common.standard_streams import open_standard_streams


class Arena:
    """Shared bytes. descriptor: of an arena that another process has made; None makes one, empty."""

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            open_standard_streams()  # or this would be one of them, and what a child takes for it its own null device
        self.descriptor = anonymous_file() if descriptor is None else descriptor
        self._map: mmap.mmap | None = None

    def grow(self, size: int) -> None:
        """At least `size` bytes; what has been written stays. Memory is taken when it is first written to."""
        if os.fstat(self.descriptor).st_size < size:
            try:
                os.ftruncate(self.descriptor, size)
            except OSError as error:
                way_out = "raise the limit of file sizes (ulimit -f), or use fewer --workers or a smaller --batch"
                raise OSError(
                    error.errno, f"{error.strerror}: {size >> 20} MiB that processes share; {way_out}"
                ) from error

    def read(self, offset: int, shape: tuple[int, ...], kind: DTypeLike = np.uint8) -> NDArray[np.generic]:
        """A view of the array at `offset`, read-only; it changes when the place is written to again."""
        count = int(np.prod(shape))
        end = offset + count * np.dtype(kind).itemsize
        if self._map is None or len(self._map) < end:
            # The old map stays with the views that were made of it.
            self._map = mmap.mmap(self.descriptor, os.fstat(self.descriptor).st_size, access=mmap.ACCESS_READ)
        return np.frombuffer(self._map, kind, count, offset).reshape(shape)

    def close(self) -> None:
        """Let go of it; views that are still in use stay valid."""
        self._map = None
        with suppress(OSError):
            os.close(self.descriptor)


def write_at(descriptor: int, offset: int, arrays: Iterable[NDArray[np.generic]]) -> int:
    """Write the arrays one after the other from `offset`; returns the offset behind them."""
    for array in arrays:
        rest = memoryview(np.ascontiguousarray(array).data).cast("B")
        while rest:
            written = os.pwrite(descriptor, rest, offset)
            offset, rest = offset + written, rest[written:]
    return offset


def anonymous_file() -> int:
    """Descriptor of one to read and write: in memory on Linux, and not bound by the size of /dev/shm; elsewhere a file that is unlinked at
    once."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("flowfeat", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())

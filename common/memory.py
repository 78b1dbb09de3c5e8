"""Whether an error means that memory ran out, and what a process does with what it frees. Imports no torch, so that commands start fast."""

from __future__ import annotations

import ctypes

KEPT_BYTES = 64 << 20
"""What `keep_freed_memory` keeps: flow of 16 windows is 26 MB, pixels of one video in 16 passes are 20 MB."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT_BLOCK = 32 << 20  # glibc takes no more
_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """True for CUDA's torch.OutOfMemoryError, for the CPU allocator's plain RuntimeError and for Python's MemoryError."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _MESSAGES)


def keep_freed_memory() -> None:
    """From now on this process keeps up to KEPT_BYTES of what it frees, and uses them again.

    glibc gives blocks of a frame's size back to the kernel at once, and takes the next ones page by page. For processes that work on arrays
    of the same sizes again and again. Does nothing where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)

"""What a process does with memory that it frees. Imports nothing heavy: decoding processes begin with it."""

from __future__ import annotations

import ctypes

OF_A_VIDEO = 64 << 20
"""What decoders and workers keep: flow of 16 windows is 26 MB, pixels of one video in 16 passes are 20 MB."""
OF_A_STEP = (1 << 31) - 1
"""What a training on a CPU keeps: all that it frees. What that saves is in bench/results.csv: train_step, system_ms_per_step with and
without returning_memory."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_LARGEST_BLOCK_BEFORE_2_35 = 32 << 20  # glibc refuses more


def keep_freed_memory(most_bytes: int) -> None:
    """From now on this process keeps up to `most_bytes` of what it frees, in blocks of up to half as much, and uses them again.

    By itself glibc gives large blocks back to the kernel at once, which clears every page of the next ones. For processes that work on
    arrays of the same sizes again and again. Does nothing where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, most_bytes // 2) or mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK_BEFORE_2_35)
        mallopt(_M_TRIM_THRESHOLD, most_bytes)

"""Whether an error means that memory ran out. Imports no torch, so that commands start fast."""

from __future__ import annotations

_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """True for CUDA's torch.OutOfMemoryError, for the CPU allocator's plain RuntimeError and for Python's MemoryError."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _MESSAGES)

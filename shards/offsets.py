"""Neighbour offsets: what counts as one, and what it is called in a shard. Imports nothing, so that decoders stay light."""

from __future__ import annotations

from collections.abc import Sequence


def check_offsets(offsets: Sequence[int]) -> tuple[int, ...]:
    """The offsets as a tuple of ints. Raises ValueError when there is none, or one is zero or given twice."""
    wanted = tuple(int(k) for k in offsets)
    if not wanted or 0 in wanted or len(set(wanted)) != len(wanted):
        raise ValueError(f"offsets must be distinct non-zero integers such as -2,-1,1,2; got {list(offsets)}")
    return wanted


def offset_label(offset: int) -> str:
    """Member name of a neighbour: -2 → "m2", +1 → "p1". Raises ValueError for 0."""
    if offset == 0:
        raise ValueError("offset 0 is the anchor itself; offsets are non-zero, for example -2,-1,1,2")
    return f"{'p' if offset > 0 else 'm'}{abs(offset)}"

"""Words behind a number, for people: "1 shard", "2 shards", "16 passes"."""

from __future__ import annotations


def plural(number: int, one: str, many: str = "") -> str:
    """`one` behind the number 1; behind others `many`, or where that is not said what the rule makes of it: shards, passes."""
    if number == 1:
        return one
    return many or (f"{one}es" if one.endswith("s") else f"{one}s")


def counted(number: int, one: str, many: str = "") -> str:
    """The number and the word."""
    return f"{number} {plural(number, one, many)}"

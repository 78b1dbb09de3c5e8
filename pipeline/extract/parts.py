"""Which part of a set a run makes: chunk c belongs to part i of n where c mod n = i - 1.

That is a function of the three numbers alone, so parts need not know of each other, and a chunk of a part that never came can be made by
whoever is given that part later. Runs may count differently: i of n and j of m have a chunk in common where i and j leave the
same remainder by the greatest common divisor of n and m. A run without parts is part 1 of 1 and has a chunk in common with everybody.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

_Work = TypeVar("_Work")


@dataclass(frozen=True)
class Part:
    """Part `index` (from 1) `of` so many. Raises ValueError outside 1 <= index <= of."""

    index: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.of:
            raise ValueError(f"part is {self}; give i/n with 1 <= i <= n, such as 1/8")

    @classmethod
    def parse(cls, text: str) -> Part:
        """ "i/n". Raises ValueError."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if found is None:
            raise ValueError(f"part is {text!r}; give i/n with 1 <= i <= n, such as 1/8")
        return cls(int(found[1]), int(found[2]))

    @property
    def whole(self) -> bool:
        """Whether it is all there is."""
        return self.of == 1

    def has(self, chunk: int) -> bool:
        return chunk % self.of == self.index - 1

    def share(self, chunks: Mapping[int, _Work]) -> dict[int, _Work]:
        """Those of the chunks that are its own."""
        return {chunk: work for chunk, work in chunks.items() if self.has(chunk)}

    def meets(self, other: Part) -> bool:
        """Whether a chunk can belong to both."""
        return (self.index - other.index) % math.gcd(self.of, other.of) == 0

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


WHOLE = Part()

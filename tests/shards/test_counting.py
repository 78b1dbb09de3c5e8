"""Numbers in sentences."""

from __future__ import annotations

import pytest

from shards.counting import counted, plural


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ("chunk",), "0 chunks"),
        (1, ("chunk",), "1 chunk"),
        (1, ("pass",), "1 pass"),
        (16, ("pass",), "16 passes"),
        (1, ("shard is", "shards are"), "1 shard is"),
        (2, ("directory", "directories"), "2 directories"),
    ],
)
def test_one_is_singular(number: int, words: tuple[str, ...], said: str) -> None:
    assert counted(number, *words) == said == f"{number} {plural(number, *words)}"

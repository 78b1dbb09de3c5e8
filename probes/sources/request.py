"""What is asked for concerning sources besides their names: whose networks may be fetched, where they lie, where features are kept.

`options()` are the options of the commands, `SourceRequest.of` takes their values; `table.py` makes the sources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

CACHE_GB = 20.0


@dataclass(frozen=True)
class SourceRequest:
    """allow_download: fetch repositories and weights, and run their code. checkouts, weights: directories and files that are
    here, by source name. cache: where features are kept, of at most cache_gb GB (10^9 bytes)."""

    allow_download: bool = False
    checkouts: Mapping[str, Path] | None = None
    weights: Mapping[str, Path] | None = None
    cache: Path | None = None
    cache_gb: float = CACHE_GB

    def __post_init__(self) -> None:
        if not self.cache_gb > 0:
            raise ValueError(f"--feature-cache-gb {self.cache_gb} must be above 0")

    @staticmethod
    def of(values: Mapping[str, Any]) -> SourceRequest:
        """From the values of `options()`; the other values are left alone. Raises ValueError for what is no NAME=PATH."""
        return SourceRequest(
            values["allow_download"],
            _named_paths(values["hub_checkout"], "--hub-checkout"),
            _named_paths(values["hub_weights"], "--hub-weights"),
            values["feature_cache"],
            values["feature_cache_gb"],
        )

    def checkout(self, name: str) -> Path | None:
        return None if self.checkouts is None else self.checkouts.get(name)

    def weights_of(self, name: str) -> Path | None:
        return None if self.weights is None else self.weights.get(name)


UNASKED = SourceRequest()
"""Nothing of others, nothing kept."""


def options() -> list[Callable[[Any], Any]]:
    """Decorators of a click command; `--source` adds to `--sources`, the others make a SourceRequest."""
    path = click.Path(path_type=Path)
    return [
        click.option(
            "--source", "own_sources", multiple=True, help="module:callable that makes a network of yours; repeatable."
        ),
        click.option(
            "--allow-download",
            is_flag=True,
            help="Fetch what a source of --sources lacks, and run code that comes with it.",
        ),
        click.option("--hub-checkout", multiple=True, help="NAME=DIR: a source's repository that is here; repeatable."),
        click.option("--hub-weights", multiple=True, help="NAME=FILE: a source's weights that are here; repeatable."),
        click.option("--feature-cache", type=path, help="Keep frozen features here, for this and later runs."),
        click.option(
            "--feature-cache-gb", type=float, default=CACHE_GB, show_default=True, help="The most that are kept, GB."
        ),
    ]


def _named_paths(pairs: Sequence[str], flag: str) -> dict[str, Path]:
    named = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise ValueError(f"{flag} {pair!r} must be NAME=PATH, with the name of a source")
        if not Path(path).exists():
            raise ValueError(f"{flag} {name}: there is no {path}")
        named[name] = Path(path)
    return named

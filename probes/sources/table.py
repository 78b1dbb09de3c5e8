"""Every feature source by name, in the order in which tables show them. A new source is one entry here.

An entry makes a `Source` of the checkpoint given on the command line; one that brings a network of its own makes its own
encoder and takes from the checkpoint what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.command import nearest
from probes.sources import flowfeat
from probes.sources.features import Source
from probes.sources.flowfeat import Checkpoint


@dataclass(frozen=True)
class SourceEntry:
    """name: as on the command line and in files. title: as in tables and on the page."""

    name: str
    title: str
    create: Callable[[Checkpoint, str], Source]


SOURCES: tuple[SourceEntry, ...] = (
    SourceEntry("encoder", "encoder alone", flowfeat.encoder_alone),
    SourceEntry("random_decoder", "encoder + random decoder", flowfeat.random_decoder),
    SourceEntry("flowfeat", "encoder + FlowFeat", flowfeat.trained_decoder),
)


def source_names() -> list[str]:
    return [entry.name for entry in SOURCES]


def title_of(name: str) -> str:
    """The title of a source; its name where stored results hold one that this program does not know."""
    return next((entry.title for entry in SOURCES if entry.name == name), name)


def check_names(names: Sequence[str]) -> list[str]:
    """`names` without repeats, in table order. Raises ValueError naming the nearest source for an unknown one."""
    for name in names:
        if name not in source_names():
            raise ValueError(f"unknown feature source {name!r}; {nearest(name, source_names())}")
    if not names:
        raise ValueError(f"no feature source chosen (known: {', '.join(source_names())})")
    return [name for name in source_names() if name in names]


def create_sources(names: Sequence[str], checkpoint: Checkpoint) -> list[Source]:
    """The named sources in table order."""
    chosen = check_names(names)
    return [entry.create(checkpoint, entry.name) for entry in SOURCES if entry.name in chosen]

"""Every feature source by name, in the order in which tables show them. A new source is one entry here, or in `hub_table.py`.

An entry makes a `Source` of the checkpoint given on the command line; one that brings a network of its own makes its own
encoder and takes from the checkpoint what it needs. `module:callable` is a source too, the user's own (`hub.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from common.command import nearest
from probes.sources import flowfeat, hub_table
from probes.sources.feature_cache import FeatureCache, with_cache
from probes.sources.features import Source
from probes.sources.flowfeat import Checkpoint
from probes.sources.hub import hub_source, own_source
from probes.sources.videomae import NAME as VIDEOMAE
from probes.sources.videomae import videomae


@dataclass(frozen=True)
class SourceEntry:
    """name: as on the command line and in files. title: as in tables and on the page. usual: compared unless others are named."""

    name: str
    title: str
    create: Callable[[Checkpoint, str], Source]
    usual: bool = False


SOURCES: tuple[SourceEntry, ...] = (
    SourceEntry("encoder", "encoder alone", flowfeat.encoder_alone, usual=True),
    SourceEntry("bilinear", "encoder, bilinear", flowfeat.resized_tokens),
    SourceEntry("random_decoder", "encoder + random decoder", flowfeat.random_decoder, usual=True),
    SourceEntry("flowfeat", "encoder + FlowFeat", flowfeat.trained_decoder, usual=True),
    SourceEntry("teacher", "encoder + FlowFeat's teacher", flowfeat.teacher_decoder),
    SourceEntry("flowfeat++", "encoder + FlowFeat++", flowfeat.refined),
    SourceEntry(VIDEOMAE, "VideoMAE ViT-B/16", videomae),
)


def entries() -> list[SourceEntry]:
    """Those of this project, then those of `hub_table.py`."""
    others = [SourceEntry(entry.name, entry.title, partial(_from_hub, entry)) for entry in hub_table.HUB]
    return [*SOURCES, *others]


def _from_hub(entry: hub_table.HubEntry, checkpoint: Checkpoint, name: str) -> Source:
    return hub_source(entry, checkpoint)


def source_names() -> list[str]:
    return [entry.name for entry in entries()]


def usual_names() -> list[str]:
    """What is compared unless other sources are named."""
    return [entry.name for entry in entries() if entry.usual]


def title_of(name: str) -> str:
    """The title of a source; its name where stored results hold one that this program does not know."""
    return next((entry.title for entry in entries() if entry.name == name), name)


def check_names(names: Sequence[str]) -> list[str]:
    """`names` without repeats, in table order, the user's own last. ValueError naming the nearest source for an unknown one."""
    known = source_names()
    own = [name for name in dict.fromkeys(names) if ":" in name]
    for name in names:
        if name not in known and name not in own:
            raise ValueError(f"unknown feature source {name!r}; {nearest(name, known)}")
    if not names:
        raise ValueError(f"no feature source chosen (known: {', '.join(known)}, or module:callable)")
    return [name for name in known if name in names] + own


def create_sources(names: Sequence[str], checkpoint: Checkpoint) -> list[Source]:
    """The named sources in table order, with the cache that the checkpoint's request names."""
    chosen = check_names(names)
    makers = {entry.name: entry.create for entry in entries()}
    made = [makers[name](checkpoint, name) if name in makers else own_source(name, checkpoint) for name in chosen]
    request = checkpoint.request
    if request.cache is None:
        return made
    return with_cache(made, FeatureCache(request.cache, int(request.cache_gb * 1e9)))

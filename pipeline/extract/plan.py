"""Which video belongs to which chunk of a set, frozen once a chunk has landed and from then on only ever extended.

Where data comes from: the listing of a data set. Where it goes: `records/plan.json` inside the set, from which
every later run continues. Chunks keep their videos for ever, so shards that have landed stay valid; videos that
appear later go into new chunks. As long as nothing has landed a plan binds nobody: the command that wrote it may have been wrong.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from pipeline.extract.known_videos import match
from pipeline.video.datasets import Video
from pipeline.video.video_ids import utf8_name
from shards import schema
from shards.files import write_atomic
from shards.schema import Settings
from shards.writer import committed


class PlanError(ValueError):
    """The set at hand cannot be continued with what was asked for."""


@dataclass(frozen=True)
class PlannedVideo:
    """A video and its place: the position-th video of a chunk. path is as it goes into videos.parquet."""

    video: Video
    path: str
    chunk: int
    position: int

    def row(self) -> dict[str, Any]:
        return {"video": self.video.id, "path": utf8_name(self.path), "chunk": self.chunk, "position": self.position}


@dataclass(frozen=True)
class ChunkPlan:
    """settings: what shapes the content. passes: how many the set shall have. videos: all, in chunk order.

    remark: what the listing found and did not take; for people.
    """

    settings: Settings
    passes: int
    videos: tuple[PlannedVideo, ...]
    remark: str = ""

    @property
    def chunks(self) -> int:
        return self.videos[-1].chunk + 1 if self.videos else 0

    @cached_property
    def by_chunk(self) -> dict[int, list[PlannedVideo]]:
        """Chunk → its videos. Grouped once: a Kinetics-sized plan has hundreds of chunks of 256."""
        return {chunk: list(videos) for chunk, videos in groupby(self.videos, key=lambda v: v.chunk)}

    def chunk(self, index: int) -> list[PlannedVideo]:
        return self.by_chunk[index]

    def missing(self, root: Path) -> dict[int, list[int]]:
        """Chunk → passes that have not landed yet."""
        done = committed(root)
        wanted = {c: [p for p in range(self.passes) if (c, p) not in done] for c in range(self.chunks)}
        return {chunk: passes for chunk, passes in wanted.items() if passes}


def make_plan(root: Path, listing: Sequence[Video], source_root: Path, settings: Settings, passes: int) -> ChunkPlan:
    """The plan for the set at `root`, new or continued; nothing is written.

    Raises PlanError naming every setting that differs from the set's, or the videos that have vanished while their
    chunk still has work to do.
    """
    stored = _read(root) if committed(root) else None
    if stored is None:
        return ChunkPlan(settings, passes, _assign(listing, source_root, settings.chunk_videos, 0))
    old = Settings.from_json(stored["settings"])
    differences = settings.differences(old)
    if differences:
        raise PlanError(
            f"the set at {root} was made with other settings; use another --out, or the same settings:\n  "
            + "\n  ".join(differences)
        )
    places = [(i, path) for i, path, *_ in stored["videos"]]
    present, fresh = match(places, [(v, _relative(v.path, source_root)) for v in listing])
    known = [
        PlannedVideo(present.get(i) or Video(i, source_root / path, kind), path, c, p)
        for i, path, kind, c, p in stored["videos"]
    ]
    first = known[-1].chunk + 1 if known else 0
    plan = ChunkPlan(
        settings, max(passes, stored["passes"]), (*known, *_assign(fresh, source_root, settings.chunk_videos, first))
    )
    unfinished = plan.missing(root)
    vanished = [v.video.id for v in known if v.video.id not in present and v.chunk in unfinished]
    if vanished:
        raise PlanError(
            f"{len(vanished)} videos of the set are no longer under {source_root}, for example {vanished[0]!r}; "
            "put them back (or give the --root that the set was begun with), or start a new set with another --out"
        )
    return plan


def _read(root: Path) -> dict[str, Any] | None:
    path = root / schema.PLAN
    if not path.is_file():
        return None
    try:
        stored: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise PlanError(f"{path} is damaged ({error}); restore it, or start a new set with another --out") from error
    return stored


def _assign(
    listing: Sequence[Video], source_root: Path, chunk_videos: int, first_chunk: int
) -> tuple[PlannedVideo, ...]:
    return tuple(
        PlannedVideo(video, _relative(video.path, source_root), first_chunk + i // chunk_videos, i % chunk_videos)
        for i, video in enumerate(listing)
    )


def _relative(path: Path, source_root: Path) -> str:
    """Relative to the data set's root where it lies inside, so that a set does not depend on where the data was mounted."""
    try:
        # realpath and not resolve: a link that leads to itself is a video that cannot be read, and no reason to stop
        return Path(os.path.realpath(path)).relative_to(os.path.realpath(source_root)).as_posix()
    except ValueError:
        return path.as_posix()


def save_plan(root: Path, plan: ChunkPlan) -> None:
    """Write the plan; must happen before the first shard lands."""
    videos = [[v.video.id, v.path, v.video.kind, v.chunk, v.position] for v in plan.videos]
    body = {"settings": plan.settings.to_json(), "passes": plan.passes, "videos": videos}
    write_atomic(root / schema.PLAN, json.dumps(body, sort_keys=True, indent=0) + "\n")

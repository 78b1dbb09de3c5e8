"""Which video belongs to which chunk of a set, frozen once a chunk has landed and from then on only ever extended.

Where data comes from: the listing of a data set. Where it goes: `records/plan.json` inside the set, from which
every later run continues. Chunks keep their videos for ever, so shards that have landed stay valid; videos that
appear later go into new chunks. As long as nothing has landed a plan binds nobody: the command that wrote it may have been wrong.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipeline.extract.real_paths import relative_paths
from pipeline.extract.sources import changed_sources
from pipeline.extract.strangers import PlanError as PlanError  # part of the names that this module keeps
from pipeline.extract.strangers import refuse_strangers
from pipeline.video.datasets import Video
from pipeline.video.video_ids import utf8_name
from shards import schema
from shards.counting import counted
from shards.files import sha256_of, write_atomic
from shards.index import read_table
from shards.records import any_recorded, committed
from shards.schema import Settings


@dataclass(frozen=True, slots=True)
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
    """settings: what shapes the content. passes: how many the set shall have. videos: all places, in chunk order; a video that is tried
    again has another, later one, and the last counts. listed: ids that this run's list holds. ignored: files that are no videos.
    remark: what the listing found and did not take, for people."""

    settings: Settings
    passes: int
    videos: tuple[PlannedVideo, ...]
    listed: frozenset[str] = frozenset()
    ignored: int = 0
    remark: str = ""

    @property
    def chunks(self) -> int:
        return self.videos[-1].chunk + 1 if self.videos else 0

    @cached_property
    def current(self) -> tuple[PlannedVideo, ...]:
        """The place of each video that counts, in chunk order."""
        last = {v.video.id: v for v in self.videos}
        return tuple(v for v in self.videos if last[v.video.id] is v)

    @cached_property
    def by_chunk(self) -> dict[int, list[PlannedVideo]]:
        """Chunk → its videos. Grouped once: a Kinetics-sized plan has hundreds of chunks of 256."""
        return {chunk: list(videos) for chunk, videos in groupby(self.current, key=lambda v: v.chunk)}

    def chunk(self, index: int) -> list[PlannedVideo]:
        return self.by_chunk.get(index, [])

    def missing(self, root: Path) -> dict[int, list[int]]:
        """Chunk → passes that have not landed yet, or whose shard is gone."""
        return self.lacking(committed(root))

    def lacking(self, done: Set[tuple[int, int]]) -> dict[int, list[int]]:
        """As `missing`, where (chunk, pass) of all that has landed are known."""
        wanted = {c: [p for p in range(self.passes) if (c, p) not in done] for c in range(self.chunks)}
        return {chunk: passes for chunk, passes in wanted.items() if passes}


@dataclass(frozen=True)
class Continuing:
    """How a set may be continued beside adding to it. retry: reasons whose videos are tried again. drop_passes: give up passes beyond
    those asked for. whole: whether one run makes all of it; parts, which begin one after the other and must come to one plan, try nothing
    again before everything has landed."""

    retry: frozenset[str] = frozenset()
    drop_passes: bool = False
    whole: bool = True


def make_plan(
    root: Path,
    listing: Sequence[Video],
    source_root: Path,
    settings: Settings,
    passes: int,
    continuing: Continuing = Continuing(),  # frozen
) -> ChunkPlan:
    """The plan for the set at `root`, new or continued; nothing is written.

    Raises PlanError for what `refuse_strangers` refuses, a set whose plan is lost, settings that differ from the set's, and
    videos that have vanished or changed while their chunk still has work to do.
    """
    refuse_strangers(root)
    listed = relative_paths(listing, source_root)
    stored = read_content(root) if any_recorded(root) else None
    if stored is None:
        videos = _assign(listed, settings.chunk_videos, 0)
        return ChunkPlan(settings, passes, videos, frozenset(v.video.id for v in videos))
    if differences := settings.differences(stored.settings):
        raise PlanError(
            f"the set at {root} was made with other settings; use another --out, or the same settings:\n  "
            + "\n  ".join(differences)
        )
    known, present, fresh = _match(stored.videos, listed, source_root)
    first = known[-1].chunk + 1 if known else 0
    kept = passes if continuing.drop_passes else max(passes, stored.passes)
    later = not continuing.whole and bool(ChunkPlan(settings, kept, tuple(known)).missing(root))
    again = _tried_again(root, known, present, frozenset() if later else continuing.retry)
    added = _assign([*again, *fresh], settings.chunk_videos, first)
    plan = ChunkPlan(settings, kept, (*known, *added), frozenset(present | {v.video.id for v in added}))
    if later and continuing.retry:
        plan = replace(plan, remark="rejected videos are tried again once every chunk of the set has landed")
    _refuse_lost_videos(root, plan, source_root)
    return plan


def _match(
    stored: Sequence[_Entry], listed: Sequence[tuple[str, Video]], source_root: Path
) -> tuple[list[PlannedVideo], set[str], list[tuple[str, Video]]]:
    """Stored videos where they are now, the ids of those that are listed, and what else is. A video keeps its id, because that draws its
    anchors, even when a file beside it gives it another one in today's list; it is known by its path, or by its id where the root was
    moved, or links give several videos one path."""
    count = Counter(path for path, _ in listed)
    by_path = {path: video for path, video in listed if count[path] == 1}
    by_id = {video.id: (path, video) for path, video in listed}
    paths = {entry.path for entry in stored}
    known, taken, ids = [], set[str](), {entry.id for entry in stored}
    present = set[str]()
    for old in stored:
        path, video = old.path, by_path.get(old.path)
        if video is None and old.id in by_id:
            moved = by_id[old.id]
            if moved[0] == old.path or moved[0] not in paths:
                path, video = moved
        if video is None:
            video = Video(old.id, source_root / old.path, old.kind)
        else:
            taken.add(video.id)
            present.add(old.id)
            video = video if video.id == old.id else replace(video, id=old.id)
        known.append(PlannedVideo(video, path, old.chunk, old.position))
    fresh = []
    for path, video in listed:
        if video.id in taken:
            continue
        name = video.id if video.id not in ids else path
        if name in ids:
            raise PlanError(f"{path} cannot be added: the set has another video called {name!r}; rename the file")
        ids.add(name)
        fresh.append((path, replace(video, id=name)))
    return known, present, fresh


def _tried_again(
    root: Path, known: Sequence[PlannedVideo], present: set[str], reasons: frozenset[str]
) -> list[tuple[str, Video]]:
    """Videos with their paths that were rejected for one of the reasons; they get places in new chunks, so nothing else is made again."""
    if not reasons:
        return []
    table = read_table(root, schema.VIDEOS, schema.read_manifest(root))
    columns = (table.column(name).to_pylist() for name in ("video", "chunk", "reason"))
    rejected = {(video, chunk) for video, chunk, reason in zip(*columns, strict=True) if reason in reasons}
    last = {v.video.id: v for v in known}
    wanted = [v for v in last.values() if (v.video.id, v.chunk) in rejected and v.video.id in present]
    return [(v.path, v.video) for v in wanted]


def _refuse_lost_videos(root: Path, plan: ChunkPlan, source_root: Path) -> None:
    unfinished, landed = plan.lacking(done := committed(root)), {chunk for chunk, _ in done}
    vanished = [v.video.id for c in unfinished for v in plan.chunk(c) if v.video.id not in plan.listed]
    if vanished:
        raise PlanError(
            f"{counted(len(vanished), 'video of the set is', 'videos of the set are')} not under {source_root}: {_first_of(vanished)}; put "
            "them back, or give a --root (or --list) with all videos of the set (links will do), or start a new set with another --out"
        )
    begun = [c for c in unfinished if c in landed]
    changed = [line for c in begun for line in changed_sources(root, c, [v.video for v in plan.chunk(c)])]
    if changed:
        raise PlanError(
            f"{counted(len(changed), 'video has', 'videos have')} changed since the first passes of their chunk were made, "
            f"for example {changed[0]}; put the old ones back, or start a new set with another --out"
        )


def _first_of(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more


class _Entry(NamedTuple):
    """A video as the file has it."""

    id: str
    path: str
    kind: Literal["file", "frames"]
    chunk: int
    position: int


@dataclass(frozen=True)
class PlanContent:
    settings: Settings
    passes: int
    videos: list[_Entry]


def read_content(root: Path) -> PlanContent:
    path = root / schema.PLAN
    if not path.is_file():
        raise PlanError(
            f"{path} is missing, and chunks have landed: which video belongs to which is not known; restore the file, or start a new "
            "set with another --out"
        )
    try:
        body = json.loads(path.read_bytes())
        videos = [_Entry(*entry) for entry in body["videos"]]
        return PlanContent(Settings.from_json(body["settings"]), int(body["passes"]), videos)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlanError(f"{path} is damaged ({error}); restore it, or start a new set with another --out") from error


def _assign(listed: Sequence[tuple[str, Video]], chunk_videos: int, first_chunk: int) -> tuple[PlannedVideo, ...]:
    return tuple(
        PlannedVideo(video, path, first_chunk + i // chunk_videos, i % chunk_videos)
        for i, (path, video) in enumerate(listed)
    )


def save_plan(root: Path, text: PlanText) -> None:
    """Write the plan; must happen before the first shard lands."""
    write_atomic(root / schema.PLAN, text.content)


@dataclass(frozen=True)
class PlanText:
    """A plan as its file has it. digest: SHA-256, hexadecimal, as `Stored.digest` is of a plan in a set."""

    content: bytes
    digest: str


def plan_text(plan: ChunkPlan) -> PlanText:
    """As json.dumps(..., indent=0) writes it, entry by entry: Python's slow encoder is the only one that indents."""
    body = {"settings": plan.settings.to_json(), "passes": plan.passes}
    head = json.dumps(body, sort_keys=True, indent=0).removesuffix("\n}")
    encode = json.JSONEncoder(separators=(",\n", ": ")).encode
    videos = (encode([v.video.id, v.path, v.video.kind, v.chunk, v.position]) for v in plan.videos)
    entries = ",\n".join(f"[\n{entry[1:-1]}\n]" for entry in videos)
    content = (f'{head},\n"videos": ' + (f"[\n{entries}\n]" if entries else "[]") + "\n}\n").encode()
    return PlanText(content, hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Stored:
    """What other runs can change of what a plan is made from. digest: of the set's plan, or empty. binds: whether anything has landed."""

    digest: str
    binds: bool


def stored_plan(root: Path) -> Stored:
    return Stored(sha256_of(path) if (path := root / schema.PLAN).is_file() else "", any_recorded(root))


def difference(root: Path, plan: ChunkPlan) -> str:
    """In a few words: how a plan differs from the one that is stored."""
    stored = read_content(root)
    if differences := plan.settings.differences(stored.settings):
        return "; ".join(differences)
    if plan.passes != stored.passes:
        return f"{counted(stored.passes, 'pass')} there, {plan.passes} here"
    there, here = ({(v.path, v.chunk) for v in videos} for videos in (stored.videos, plan.videos))
    odd = min(there ^ here, default=("", 0))[0]
    return f"{counted(len(stored.videos), 'video')} there, {len(plan.videos)} here, for example {odd!r}"

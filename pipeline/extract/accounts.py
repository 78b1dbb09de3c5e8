"""What became of every video of the list: the sums close, or the run says that they do not.

A plan and the set's video table come in, `Accounts` go out, for people and as JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.extract.parts import Part
from pipeline.extract.plan import ChunkPlan
from shards import schema
from shards.index import read_table
from shards.records import committed, read_videos
from shards.schema import Manifest

Outcome = tuple[str, str, str]
"""Video, status and reason of a row of videos.parquet."""


@dataclass(frozen=True)
class Accounts:
    """listed: videos of this run's list. Of those: ok, rejected by reason, pending (their chunk has not landed). gone: videos that the
    set has and the list has not. ignored: files beside the videos that are none by name."""

    listed: int
    ok: int
    rejected: Mapping[str, int]
    pending: int
    gone: int
    ignored: int

    def __post_init__(self) -> None:
        total = self.ok + sum(self.rejected.values()) + self.pending
        assert total == self.listed, f"{self.listed} videos listed, {total} accounted for: {self}"


def accounts(plan: ChunkPlan, outcomes: Iterable[Outcome]) -> Accounts:
    """The outcome of each listed video of a plan. Raises AssertionError where a video has two."""
    found: dict[str, tuple[str, str]] = {}
    for video, status, reason in outcomes:
        assert video not in found, f"{video!r} has two outcomes"
        found[video] = (status, reason)
    ok, pending, rejected = 0, 0, Counter[str]()
    for video in plan.listed:
        status, reason = found.get(video, ("", ""))
        ok += status == schema.OK
        pending += not status
        if status == schema.REJECTED:
            rejected[reason] += 1
    gone = len(found.keys() - plan.listed)
    return Accounts(len(plan.listed), ok, dict(sorted(rejected.items())), pending, gone, plan.ignored)


def accounts_of(root: Path, plan: ChunkPlan, manifest: Manifest) -> Accounts:
    """As `accounts`, of a finished set; a complete one leaves no video pending."""
    table = read_table(root, schema.VIDEOS, manifest)
    columns = (table.column(name).to_pylist() for name in ("video", "status", "reason"))
    found = accounts(plan, zip(*columns, strict=True))
    assert not (manifest.complete and found.pending), f"the set is complete, and {found.pending} videos have no outcome"
    return found


def accounts_of_part(root: Path, plan: ChunkPlan, part: Part) -> Accounts:
    """As `accounts_of`, of the listed videos whose chunk belongs to a part, from the records of what has landed: there may be no manifest
    yet. A video that is tried again belongs where it was placed last; until that chunk lands, its earlier outcome counts."""
    landed = {chunk for chunk, _ in committed(root)}
    mine = {v.video.id for v in plan.current if part.has(v.chunk)}
    read: dict[int, dict[str, Outcome]] = {}
    found: dict[str, Outcome] = {}
    for planned in plan.videos:
        chunk, name = planned.chunk, planned.video.id
        if name not in mine or chunk not in landed:
            continue
        if chunk not in read:
            read[chunk] = {
                row["video"]: (row["video"], row["status"], row["reason"]) for row in read_videos(root, chunk)
            }
        if name in read[chunk]:
            found[name] = read[chunk][name]
    share = replace(plan, listed=plan.listed & mine, ignored=0)
    closed = accounts(share, found.values())
    assert not closed.pending or part.share(plan.missing(root)), (
        f"{closed.pending} videos of part {part} have no outcome"
    )
    return closed


def accounts_at_end(root: Path, plan: ChunkPlan, part: Part, manifest: Manifest | None) -> Accounts:
    """Of whatever a run has made: the list, or its part of it."""
    if part.whole and manifest is not None:
        return accounts_of(root, plan, manifest)
    return accounts_of_part(root, plan, part)

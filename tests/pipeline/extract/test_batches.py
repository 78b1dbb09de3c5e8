"""Which windows run together: a rule of the list alone, whatever had landed before and whatever could be decoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.extract.assembly import Assembly
from pipeline.extract.batches import ALONE, Place, batches, blocks, groups, windows_per_call
from pipeline.extract.plan import PlannedVideo
from pipeline.extract.room import FRAMES_MOST_BYTES, Places, Room
from pipeline.extract.runner import ChunkJob
from pipeline.extract.stages import Encoded, Refused
from pipeline.flow.estimator import EstimatorOptions, choose
from pipeline.video.datasets import Video
from pipeline.video.messages import VideoFacts
from shards.schema import Settings
from shards.writer import EncodedSample

FACTS = VideoFacts(40, 36, 25.0, 340, 256, 1.6, "decord", 20)


def job(
    videos: int, passes: tuple[int, ...], batch: int, *, together: bool, positions: range | None = None
) -> ChunkJob:
    planned = [
        PlannedVideo(Video(f"v{position}", Path(f"v{position}.mp4"), "file"), f"v{position}.mp4", 3, position)
        for position in positions or range(videos)
    ]
    return ChunkJob(Path("set"), Settings("folder", {}), 3, passes, planned, batch, 60.0, together)


def sample(name: str) -> EncodedSample:
    return EncodedSample(name, 2, 0.0, b"jpeg", [b"flow"], {}, {})


def companies(work: ChunkJob, good: set[int]) -> dict[int, set[tuple[int, ...]]]:
    """Pass → the companies (positions) that its windows run in."""
    found: dict[int, set[tuple[int, ...]]] = {p: set() for p in work.passes}
    for group in groups(work):
        for batch in batches(work, group, [video for video in group if video in good]):
            (turn,) = {place.turn for place in batch}
            found[work.passes[turn]].add(tuple(work.videos[place.video].position for place in batch))
    return found


def test_a_batch_holds_one_pass_of_neighbouring_videos_and_rejects_leave_holes() -> None:
    found = companies(job(7, (0, 1), 3, together=True), {0, 1, 2, 4, 6})
    assert found == {0: {(0, 1, 2), (4,), (6,)}, 1: {(0, 1, 2), (4,), (6,)}}


def test_company_depends_on_neither_what_had_landed_nor_blocks_of_passes() -> None:
    everything = companies(job(10, tuple(range(8)), 4, together=True), set(range(10)))
    later = job(10, (5, 7), 4, together=True)
    assert companies(later, set(range(10))) == {p: everything[p] for p in (5, 7)}
    for block in blocks(job(10, tuple(range(8)), 4, together=True), 3):
        assert companies(block, set(range(10))) == {p: everything[p] for p in block.passes}
    half = job(0, (0,), 4, together=True, positions=range(6, 10))
    assert companies(half, {0, 1, 2, 3}) == {0: {(6, 7), (8, 9)}}, "a part of a chunk keeps the borders of the whole"


def test_windows_that_are_looked_at_alone_wait_for_nobody() -> None:
    work = job(3, tuple(range(5)), 2, together=False)
    assert list(groups(work)) == [range(1), range(1, 2), range(2, 3)]
    assert list(batches(work, range(1, 2), [1])) == [
        [Place(1, 0), Place(1, 1)],
        [Place(1, 2), Place(1, 3)],
        [Place(1, 4)],
    ]


def test_batches_are_as_large_as_the_estimator_wants() -> None:
    random = EstimatorOptions(weights="random:0")
    assert windows_per_call(choose("dis"), 4, None) == ALONE
    assert windows_per_call(choose("raft-small", random), 4, None) == 2, "8 pairs on a CPU"
    wide = choose("raft-small", EstimatorOptions(weights="random:0", extra={"batch_pairs": "256"}))
    assert windows_per_call(wide, 4, None) == 64
    assert windows_per_call(wide, 600, None) == 1
    assert windows_per_call(wide, 4, 5) == 5


def test_batches_come_when_their_group_is_there_and_videos_in_the_order_of_the_plan() -> None:
    work = Assembly(job(4, (0, 1), 2, together=True))
    assert work.decoded(2, 0.0, FACTS) == [] and work.decoded(1, 0.0, FACTS) == []
    assert work.refused(3, 0.0, "corrupt", "x") == [[Place(2, 0)], [Place(2, 1)]]
    for turn in (1, 0):
        work.encoded(Place(2, turn), sample(f"two-{turn}"))
    assert list(work.finished()) == [], "the first video is not there yet"
    assert work.decoded(0, 0.0, FACTS) == [[Place(0, turn), Place(1, turn)] for turn in (0, 1)]
    work.encoded(Place(0, 0), sample("zero-0"))
    work.failed(Place(1, 0), "no such frame")
    work.encoded(Place(1, 1), sample("one-1"))
    work.encoded(Place(0, 1), sample("zero-1"))
    zero, one, two, three = work.finished()
    assert isinstance(zero, Encoded) and [s.video for s in zero.samples] == ["zero-0", "zero-1"]
    assert isinstance(one, Refused) and (one.reason, one.detail) == ("flow_failed", "no such frame")
    assert isinstance(two, Encoded) and isinstance(three, Refused) and three.reason == "corrupt"
    assert work.complete


def test_places_are_bounded_in_bytes_and_the_last_freed_is_the_first_taken() -> None:
    many = job(256, tuple(range(500)), 64, together=True)
    need = Room.of(many, flow_workers=8, decoders=64)
    assert need.windows * need.window_bytes <= FRAMES_MOST_BYTES and 1 <= need.most_passes < 32
    assert len(blocks(many, need.most_passes)[0].passes) == need.most_passes
    small = Room.of(job(9, (0, 1), 16, together=False), flow_workers=2, decoders=2)
    assert small.windows == 2 * (2 + 2) + 2 * 2 * 2, (
        "two videos and one per decoder; two batches of two per flow worker"
    )
    places = Places(10, 3)
    first, second = places.take(2)
    places.give_back(first)
    assert places.free == 2 and places.take(1) == (first,) and first != second
    with pytest.raises(AssertionError):
        places.take(2)

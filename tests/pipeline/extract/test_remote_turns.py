"""Parts of a set in a bucket that end at the same time: whatever comes before what, the manifest knows everything that has landed."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from common.command import PlainError
from pipeline.extract.plan import PlanError
from shards import schema
from shards.video_table import PlanRow
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import digests, make_videos, request
from tests.pipeline.extract.turns import Parts

pytest.importorskip("fsspec", reason="the extra `remote` is not installed")


class Made(NamedTuple):
    """A set of three chunks, and the rows of its plan."""

    root: Path
    rows: Sequence[PlanRow]
    digests: dict[str, str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    videos, root = make_videos(tmp_path_factory.mktemp("videos"), 3), tmp_path_factory.mktemp("made") / "set"
    wanted = request(videos, root, passes=1, content={"chunk_videos": 1})
    run_here(wanted)
    return Made(root, [video.row() for video in wanted.plan().videos], digests(root))


@pytest.fixture
def parts(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    return Parts(made.root, made.rows, tmp_path, monkeypatch)


@pytest.mark.parametrize("moment", ["list", "put index.parquet", "put videos.parquet", "put manifest.json"])
def test_an_older_manifest_never_comes_after_a_newer_one(made: Made, parts: Parts, moment: str) -> None:
    """The first part has made tables that know its own chunks alone when the second lands its last chunk and ends."""
    first, second = parts.begin(1, 2), parts.begin(2, 2)
    second.until("put records/pass-00")
    first.until("put records/pass-00/000002")
    first.go_on()
    first.until("list")
    first.go_on()
    first.until(moment)
    second.to_its_end()
    assert first.to_its_end() and second.to_its_end()
    assert digests(parts.place) == made.digests
    assert not list(parts.place.glob(".lock*"))


@pytest.mark.parametrize("seed", range(10))
def test_parts_in_any_order_of_requests_end_in_the_set_of_one_run(made: Made, parts: Parts, seed: int) -> None:
    order = random.Random(seed)
    parts.run_all([parts.begin(index, 3) for index in (1, 2, 3)], order)
    assert digests(parts.place) == made.digests
    assert not list(parts.place.glob(".lock*"))


@pytest.mark.parametrize("seed", range(6))
def test_also_where_the_storage_lets_two_through_one_gate(made: Made, parts: Parts, seed: int) -> None:
    order = random.Random(seed)
    parts.run_all([parts.begin(index, 3, atomic=False) for index in (1, 2, 3)], order)
    assert digests(parts.place) == made.digests


@pytest.mark.parametrize("seed", range(8))
def test_a_part_that_is_killed_anywhere_is_run_again_and_the_set_is_whole(made: Made, parts: Parts, seed: int) -> None:
    order = random.Random(seed)
    killed = parts.run_all([parts.begin(index, 3) for index in (1, 2, 3)], order, kills=2)
    assert len(killed) == 2, "each dies before it could have ended"
    for actor in killed:
        again = parts.begin(int(actor.name[5]), 3)
        assert again.to_its_end()
    assert digests(parts.place) == made.digests
    assert not list(parts.place.glob(".lock*"))


def test_what_a_part_has_landed_before_it_died_is_in_the_manifest_of_who_ends_later(made: Made, parts: Parts) -> None:
    first, second = parts.begin(1, 2), parts.begin(2, 2)
    second.until("put records/pass-00/000001")
    first.until("put records/pass-00/000002")
    second.go_on()
    second.kill()
    parts.give_up(second)
    assert first.to_its_end() and digests(parts.place) == made.digests


@pytest.mark.parametrize("moment", ["put index.parquet", "put videos.parquet", "put manifest.json"])
def test_who_was_taken_for_dead_while_publishing_looks_again(made: Made, parts: Parts, moment: str) -> None:
    """The first part sleeps between two of its tables for longer than a lock lives, and puts the rest over those of the second."""
    first, second = parts.begin(1, 2), parts.begin(2, 2)
    second.until("put records/pass-00")
    first.until(moment)
    parts.give_up(first)
    assert second.to_its_end()
    assert first.to_its_end() and digests(parts.place) == made.digests


def test_two_plans_that_come_at_once_are_not_both_begun(made: Made, parts: Parts) -> None:
    """Each found a bucket without a plan."""
    first, second = parts.begin(1, 2), parts.begin(2, 2)
    for actor in (first, second):
        actor.until("create .lock-gate")
    first.until("put records/pass-00")
    plan = parts.place / schema.PLAN
    plan.write_bytes(plan.read_bytes() + b"\n")  # as if its videos were others
    with pytest.raises(AssertionError, match="from another plan"):
        second.to_its_end()
    assert isinstance(second.error, PlanError)
    assert not list(parts.place.glob("pass-00/000001.tar")), "it has uploaded nothing"
    with pytest.raises(AssertionError, match="another run has taken over the set at"):
        first.to_its_end()
    assert isinstance(first.error, PlainError) and not (parts.place / schema.MANIFEST).exists()


def test_a_gate_that_is_no_lock_of_ours_is_named(parts: Parts) -> None:
    parts.place.mkdir(parents=True)
    first = parts.begin(1, 2)
    first.until("put records/pass-00/000000")
    (parts.place / ".lock-gate").write_text("something else")
    with pytest.raises(AssertionError, match=re.escape("/.lock-gate is not ours: delete it if no extraction")):
        first.to_its_end()

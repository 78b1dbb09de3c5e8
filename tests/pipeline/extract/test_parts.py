"""Parts of a set, made at once or one after the other: their union is the set that one run makes."""

from __future__ import annotations

import math
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from common.command import PlainError
from pipeline.extract.accounts import accounts_of_part
from pipeline.extract.at_work import PartEnd
from pipeline.extract.parts import Part
from pipeline.extract.plan import Continuing, PlanError
from pipeline.extract.run import ExtractionRequest, extract_part
from pipeline.extract.runner import ChunkDone, Event
from shards import schema
from shards.reader import ShardSet
from shards.verify import verify
from tests.pipeline.extract.in_process import InProcessRunner, run_here
from tests.pipeline.extract.small_extraction import digests, make_videos, request

N_VIDEOS = 9
"""Five chunks of two."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"), N_VIDEOS)


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("whole") / "set"
    run_here(request(videos, out))
    return digests(out)


def part(text: str, wanted: ExtractionRequest, on_event: Callable[[Event], None] = lambda event: None) -> PartEnd:
    """Make a part in this process."""
    runner = InProcessRunner(wanted.estimator)
    wanted = replace(wanted, part=Part.parse(text))
    return extract_part(wanted, runner, lambda event, tally: on_event(event), lambda plan, tally: None)


def shards_of(out: Path) -> dict[str, list[int]]:
    """Pass → chunks."""
    return {p.name: sorted(int(tar.stem) for tar in p.iterdir()) for p in sorted(out.glob("pass-*"))}


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "2", "a/b", "1/2/3", "-1/2", "", "1/²"])
def test_a_part_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"part is '?.*; give i/n with 1 <= i <= n, such as 1/8"):
        Part.parse(text)


def test_parts_cover_everything_once_and_meet_where_they_have_a_chunk_in_common() -> None:
    for n in range(1, 9):
        assert all(sum(Part(i, n).has(chunk) for i in range(1, n + 1)) == 1 for chunk in range(30))
        for m in range(1, 9):
            for i in range(1, n + 1):
                for j in range(1, m + 1):
                    one, other = Part(i, n), Part(j, m)
                    common = any(one.has(chunk) and other.has(chunk) for chunk in range(math.lcm(n, m)))
                    assert one.meets(other) == other.meets(one) == common, (one, other)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_one_after_the_other_is_one_run(
    videos: Path, whole: dict[str, str], tmp_path: Path, order: tuple[int, ...]
) -> None:
    out = tmp_path / "set"
    for turn, index in enumerate(order):
        ended = part(f"{index}/3", request(videos, out))
        assert ended.manifest is not None, "nobody else is at work, so it says what has landed"
        assert ended.manifest.complete == (turn == 2) == (not ended.missing) and not ended.at_work
        assert len(ShardSet(out, allow_partial=True)) == ended.manifest.counts["samples"]
    assert digests(out) == whole and verify(out, deep=True) == []


def test_all_at_once_are_one_run(videos: Path, whole: dict[str, str], tmp_path: Path) -> None:
    """Also who begins first: each finds a directory that may or may not be there, and one plan."""
    out = tmp_path / "made" / "set"
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda i: part(f"{i}/4", request(videos, out)), (1, 2, 3, 4)))
    assert sum(end.manifest is not None and end.manifest.complete for end in ended) >= 1
    assert digests(out) == whole and verify(out, deep=True) == []
    assert not list((out / ".tmp").glob("*")) and not list((out / ".locks").glob("part-*"))


def test_more_parts_than_chunks(videos: Path, whole: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "set"
    for index in (7, 6, 5, 4, 3, 2, 1):
        part(f"{index}/7", request(videos, out))
    assert digests(out) == whole


class Paused:
    """A part that stops at its first event until it is told to go on."""

    def __init__(self, text: str, wanted: ExtractionRequest) -> None:
        self._reached, self._go_on = threading.Event(), threading.Event()
        self.ended: list[PartEnd | BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(text, wanted))

    def _run(self, text: str, wanted: ExtractionRequest) -> None:
        try:
            self.ended.append(part(text, wanted, self._pause))
        except BaseException as error:
            self.ended.append(error)
            self._reached.set()

    def _pause(self, event: Event) -> None:
        self._reached.set()
        assert self._go_on.wait(60)

    def __enter__(self) -> Paused:
        self._thread.start()
        assert self._reached.wait(60) and not self.ended, self.ended
        return self

    def go_on(self) -> PartEnd:
        self._go_on.set()
        self._thread.join(60)
        (ended,) = self.ended
        assert isinstance(ended, PartEnd), ended
        return ended

    def __exit__(self, *_: object) -> None:
        self._go_on.set()
        self._thread.join(60)


def test_who_would_make_the_same_chunks_is_refused(videos: Path, whole: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "set"
    with Paused("1/2", request(videos, out)) as first:
        for text in ("1/2", "1/1", "3/4", "1/3"):
            with pytest.raises(
                PlainError, match=r"already at work in .*set \(part 1/2, process \d+ on .*\): wait for it"
            ):
                part(text, request(videos, out))
        assert part("4/4", request(videos, out)).manifest is None, "the other one is still at work"
        assert not (out / schema.MANIFEST).exists()
        left = part("2/4", request(videos, out))
        assert left.manifest is None and sorted(left.missing) == [0, 2, 4]
        assert [str(held) for held in left.at_work] == ["1/2"] and "part 1/2, process" in left.at_work[Part(1, 2)]
        ended = first.go_on()
    assert ended.manifest is not None and ended.manifest.complete and digests(out) == whole
    with Paused("1/1", request(videos, out, passes=3)), pytest.raises(PlainError, match=r"\(a run, process \d+"):
        part("2/2", request(videos, out, passes=3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"passes": 3}, "2 passes there, 3 here"),
        ({"content": {"seed": 9}}, "seed"),
    ],
)
def test_another_plan_is_refused_while_others_are_at_work(
    videos: Path, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    out = tmp_path / "set"
    with Paused("1/2", request(videos, out)) as first:
        with pytest.raises(PlanError, match=f"works on the set at .* from another plan .*{said}.* or wait for it"):
            part("2/2", request(videos, out, **change))  # type: ignore[arg-type]
        fewer = shutil.copytree(videos, tmp_path / "fewer")
        (fewer / "synth-00008.mp4").unlink()
        with pytest.raises(PlanError, match=r"another plan \(9 videos there, 8 here, for example 'synth-00008.mp4'\)"):
            part("2/2", request(fewer, out))
        first.go_on()


def test_more_passes_and_more_videos_once_nobody_is_at_work(videos: Path, tmp_path: Path) -> None:
    out, list_file = tmp_path / "set", tmp_path / "videos"
    shutil.copytree(videos, list_file)
    for index in (1, 2):
        part(f"{index}/2", request(list_file, out))
    shutil.copy(videos / "synth-00003.mp4", list_file / "synth-00100.mp4")
    for index in (2, 1):
        ended = part(f"{index}/2", request(list_file, out, passes=3))
    assert ended.manifest is not None and (ended.manifest.complete, ended.manifest.passes) == (True, 3)
    assert shards_of(out) == {f"pass-{p:02d}": [0, 1, 2, 3, 4, 5] for p in range(3)}
    part("1/2", request(list_file, out, passes=1))
    assert ShardSet(out).manifest.passes == 3, "never by a smaller number"
    with pytest.raises(ValueError, match="--drop-passes takes passes from the whole set: run it once, without --part"):
        part("1/2", request(list_file, out, passes=1, continuing=Continuing(drop_passes=True)))


def test_rejected_videos_are_tried_again_once_for_all_parts(videos: Path, tmp_path: Path) -> None:
    mine, out = shutil.copytree(videos, tmp_path / "videos"), tmp_path / "set"
    (mine / "synth-00000.mp4").write_bytes(b"")
    again = Continuing(frozenset({"empty_file"}))
    part("1/2", request(mine, out))
    waits = replace(request(mine, out, continuing=again), part=Part(2, 2))
    assert waits.plan().remark.endswith("rejected videos are tried again once every chunk of the set has landed")
    ended = part("2/2", waits)
    assert ended.manifest is not None and ended.manifest.counts["rejected"] == {"empty_file": 1}
    shutil.copy(videos / "synth-00000.mp4", mine / "synth-00000.mp4")
    part("1/2", request(mine, out, continuing=again))
    ended = part("2/2", request(mine, out, continuing=again))
    assert ended.manifest is not None and ended.manifest.complete and ended.manifest.chunks == 6
    assert ended.manifest.counts["ok"] == N_VIDEOS and verify(out, deep=True) == []


def test_the_first_part_says_meanwhile_what_has_landed(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.extract.run.PARTIAL_MANIFEST_EVERY_S", 0.0)
    monkeypatch.setattr("pipeline.extract.run.PUBLISHING_WAIT_S", 30.0)  # however busy the machine
    for index, seen in ((2, [False, False]), (1, [True, True])):
        out, found = tmp_path / str(index), list[bool]()

        def look(event: Event, out: Path = out, found: list[bool] = found) -> None:
            if isinstance(event, ChunkDone):
                found.append((out / schema.MANIFEST).exists())

        part(f"{index}/2", request(videos, out), look)
        assert found[:2] == seen


def test_the_accounts_of_the_parts_add_up(videos: Path, tmp_path: Path) -> None:
    mine, out = shutil.copytree(videos, tmp_path / "videos"), tmp_path / "set"
    for name in ("synth-00000.mp4", "synth-00005.mp4"):
        (mine / name).write_bytes(b"")
    wanted = request(mine, out)
    part("2/3", wanted)
    found = [accounts_of_part(out, wanted.plan(), Part(i, 3)) for i in (1, 2, 3)]
    assert [(a.listed, a.ok, a.pending) for a in found] == [(4, 0, 4), (3, 3, 0), (2, 0, 2)]
    for index in (1, 3):
        part(f"{index}/3", wanted)
    found = [accounts_of_part(out, wanted.plan(), Part(i, 3)) for i in (1, 2, 3)]
    assert sum(a.listed for a in found) == N_VIDEOS and not any(a.pending for a in found)
    assert [(a.ok, dict(a.rejected)) for a in found] == [(3, {"empty_file": 1}), (3, {}), (1, {"empty_file": 1})]
    shutil.copy(videos / "synth-00000.mp4", mine / "synth-00000.mp4")
    again = request(mine, out, continuing=Continuing(frozenset({"empty_file"})))
    planned = replace(again, part=Part(1, 3)).plan()
    begun = [accounts_of_part(out, planned, Part(i, 3)) for i in (1, 2, 3)]
    assert sum(a.listed for a in begun) == N_VIDEOS and sum(sum(a.rejected.values()) for a in begun) == 2
    run_here(again)
    ended = [accounts_of_part(out, wanted.plan(), Part(i, 3)) for i in (1, 2, 3)]
    assert [a.listed for a in ended] == [3, 3, 3] and sum(a.ok for a in ended) == 8
    assert os.listdir(out / ".locks") and not list((out / ".locks").glob("part-*"))

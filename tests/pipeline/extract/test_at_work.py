"""A run that finds another's traces, or comes back after having been given up: what it may do, and what it must leave."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from common import lease
from common.command import PlainError
from common.holder import Holder
from pipeline.extract import run as run_module
from pipeline.extract.parts import Part
from pipeline.extract.plan import ChunkPlan, PlanError
from pipeline.extract.run import extract_part, finalize_plan
from pipeline.extract.runner import ChunkDone, Event, ExtractionError, IndexBegun
from shards import schema
from shards.records import committed
from shards.schema import Manifest
from tests.pipeline.extract.in_process import InProcessRunner, run_here
from tests.pipeline.extract.small_extraction import digests, make_videos, request
from tests.pipeline.extract.test_parts import part

ELSEWHERE = Holder("part 1/2", "far", 7, "another boot", "1")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"), 4)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks with a short life, so that a death elsewhere is soon believed."""
    monkeypatch.setattr(lease, "BEAT_S", 0.02)
    monkeypatch.setattr(lease, "LEASE_S", 0.4)


def left_elsewhere(out: Path) -> Path:
    """The lock of part 1/2 on a machine that has been switched off."""
    left = out / ".locks" / "part-1-of-2-0badf00d"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text(f"{3:012d} {json.dumps(asdict(ELSEWHERE))}\n")
    return left


@pytest.mark.usefixtures("soon")
def test_the_part_of_a_machine_that_is_gone_is_taken_over(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    run_here(request(videos, tmp_path / "whole"))
    left = left_elsewhere(out)
    began = time.monotonic()
    ended = part("2/2", request(videos, out))
    assert ended.manifest is not None and not ended.manifest.complete and ended.missing == {0: [0, 1]}
    assert time.monotonic() - began >= 0.4, "it may have been alive"
    (out / ".tmp" / "000000-7").mkdir(parents=True)  # of the chunk at which it was
    ended = part("1/2", request(videos, out))
    assert ended.manifest is not None and ended.manifest.complete and not left.exists()
    assert digests(out) == digests(tmp_path / "whole") and not list((out / ".tmp").iterdir())


@pytest.mark.usefixtures("soon")
def test_what_another_part_has_half_made_is_left_alone(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    half = out / ".tmp" / "000000-7"
    seen: list[bool] = []

    def look(event: Event) -> None:
        if not isinstance(event, IndexBegun):  # by then it has found that nobody else is at work
            seen.append(half.is_dir())

    part("2/2", request(videos, out))
    half.mkdir(parents=True)
    part("2/2", request(videos, out, passes=3), look)
    assert seen and all(seen)


@pytest.mark.usefixtures("soon")
def test_a_plan_is_replaced_only_when_it_is_known_that_nobody_works_from_it(videos: Path, tmp_path: Path) -> None:
    """Whoever did, and comes back, finds that its lock is gone."""
    out = tmp_path / "set"
    part("2/2", request(videos, out, passes=1))
    left = left_elsewhere(out)
    part("2/2", request(videos, out, passes=1))
    assert left.exists(), "the same plan"
    part("2/2", request(videos, out, passes=2))
    assert not left.exists()


@pytest.mark.usefixtures("soon")
def test_a_run_whose_lock_was_taken_ends(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"

    def take(event: Event) -> None:
        for held in (out / ".locks").glob("part-*"):
            held.unlink()
        time.sleep(0.2)

    with pytest.raises(
        PlainError, match="so another machine may have taken over: this run ends; what has landed is safe"
    ):
        part("1/2", request(videos, out), take)
    assert len(committed(out)) < 2
    assert part("1/2", request(videos, out)).manifest is not None


def test_a_file_that_is_no_lock_keeps_everybody_out(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    here = Holder.here("something else")
    (out / ".locks").mkdir(parents=True)
    (out / ".locks" / "odd").write_text(f"{3:012d} {json.dumps(asdict(here))}\n")
    with pytest.raises(PlainError, match=r"already at work in .*set \(something else, process"):
        part("1/2", request(videos, out))


def test_a_run_that_was_overtaken_while_it_planned_plans_again(videos: Path, tmp_path: Path) -> None:
    """Between its plan and its lock another one has begun and ended a set with other settings."""
    out = tmp_path / "set"

    class Overtaken(InProcessRunner):
        def prepare(self, jobs: int) -> None:
            super().prepare(jobs)
            run_here(request(videos, out, content={"seed": 9}))

    wanted = request(videos, out)
    with pytest.raises(PlanError, match="was made with other settings"):
        extract_part(wanted, Overtaken(wanted.estimator), lambda event, tally: None, lambda plan, tally: None)
    run_here(request(videos, tmp_path / "other", content={"seed": 9}))
    assert digests(out) == digests(tmp_path / "other")


@pytest.mark.parametrize("plan_is_kept", [True, False])
def test_who_was_taken_for_dead_at_the_gate_leaves_no_older_manifest(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan_is_kept: bool
) -> None:
    """It sleeps while it writes the manifest of its own chunks; meanwhile the other part ends, and its last write comes late."""
    out, calls = tmp_path / "set", list[int]()

    def asleep(root: Path, plan: ChunkPlan) -> Manifest:
        calls.append(plan.passes)
        made = finalize_plan(root, plan)
        if len(calls) == 1:
            mine = {name: (root / name).read_bytes() for name in (schema.INDEX, schema.VIDEOS, schema.MANIFEST)}
            for gate in (root / ".locks").glob("gate-*"):
                gate.write_bytes(b"free".ljust(12))
            if plan_is_kept:
                part("2/2", request(videos, out))
            else:
                for lock in (root / ".locks").glob("part-1-*"):
                    lock.unlink()
                run_here(request(videos, out, passes=3))
            for name, late in mine.items():
                (root / name).write_bytes(late)
        return made

    monkeypatch.setattr(run_module, "finalize_plan", asleep)
    monkeypatch.setattr(lease, "BEAT_S", 1000.0)  # its lock is not heard of
    if plan_is_kept:
        ended = part("1/2", request(videos, out))
        assert ended.manifest is not None and ended.manifest.complete and not ended.missing
        assert schema.read_manifest(out).complete
    else:
        with pytest.raises(PlainError, match=r"another run has taken over the set at .* with another plan"):
            part("1/2", request(videos, out))
        assert schema.read_manifest(out).passes == 2, "its own late write, which any rerun puts right"
    run_here(request(videos, out, passes=2 if plan_is_kept else 3))
    run_here(request(videos, tmp_path / "whole", passes=2 if plan_is_kept else 3))
    assert digests(out) == digests(tmp_path / "whole")


def test_a_part_that_fails_leaves_a_manifest_if_nobody_else_is_at_work(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"

    def fail(event: Event) -> None:
        if isinstance(event, ChunkDone):
            raise ExtractionError("enough")

    with pytest.raises(ExtractionError, match="enough"):
        part("2/2", request(videos, out), fail)
    assert (out / "manifest.json").is_file() and not list((out / ".locks").glob("part-*"))
    wanted = replace(request(videos, out), part=Part(2, 2))
    assert wanted.part.share(wanted.plan().missing(out)) == {}

"""The made-up sets of the benches are sets to the product's own code, and each step does what its name says."""

from __future__ import annotations

from pathlib import Path

from bench.cost import cost_of
from bench.made_up_set import SETTINGS, name_of, plan_of, write_growing, write_records, write_set
from bench.scale import land, record_steps, requests, to_jobs
from pipeline.extract.plan import make_plan
from shards import schema
from shards.reader import ShardSet
from shards.records import committed
from shards.schema import read_manifest
from shards.verify import verify


def test_the_steps_run_and_the_set_opens(tmp_path: Path) -> None:
    root = tmp_path / "set"
    plan = write_records(root, 300, 2)
    steps = record_steps(root, plan, 300)
    steps["finalise_the_whole_set"]()
    written = (root / schema.MANIFEST).stat().st_mtime_ns
    steps["finalise_nothing_new"]()
    assert (root / schema.MANIFEST).stat().st_mtime_ns == written, "nothing was new"
    data = ShardSet(root)
    assert len(data) == 600 and data.manifest.complete and data.video[-1] == name_of(299)
    assert data.manifest.counts["ok"] == 300 and data.keys[256] == "000001-00-0000"
    made = make_plan(root, [v.video for v in plan.videos], root.parent / "videos", SETTINGS, 2)
    assert made.listed == plan.listed and not made.missing(root)
    assert cost_of(lambda: ShardSet(root)).cpu_s > 0


def test_a_set_that_is_made_at_once_is_intact(tmp_path: Path) -> None:
    assert write_set(tmp_path, 300, 2) == 600
    assert verify(tmp_path) == []


def test_a_chunk_lands_in_a_set_that_grows(tmp_path: Path) -> None:
    write_growing(tmp_path, 12 * 256, 2)
    steps = record_steps(tmp_path, plan_of(tmp_path, 12 * 256, 2), 12 * 256)
    steps["commit_a_chunk"]()
    steps["finalise_a_chunk"]()
    manifest = read_manifest(tmp_path)
    assert len(manifest.shards) == 22 and not manifest.complete
    assert ShardSet(tmp_path, allow_partial=True).video[-1] == name_of(11 * 256 - 1)


def test_lists_are_planned_and_resumed(tmp_path: Path) -> None:
    for request in requests(tmp_path, 600).values():
        to_jobs(request)
        land(request)
        to_jobs(request)
        assert len(committed(request.out)) == 16 * 3, "a hundredth of three chunks is none"

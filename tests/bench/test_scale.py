"""The made-up sets of the benches are sets to the product's own code, and each step does what its name says."""

from __future__ import annotations

from pathlib import Path

from bench.cost import cost_of
from bench.made_up_set import name_of, plan_of, write_growing, write_records, write_set
from bench.scale import land, record_steps, requests, to_jobs
from shards import schema
from shards.reader import ShardSet
from shards.records import committed
from shards.schema import read_manifest
from shards.verify import verify

VIDEOS = 600
PASSES = 2


def test_a_set_that_grows(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_records(root, VIDEOS, PASSES, but_chunks=2)
    steps = record_steps(root, plan_of(root, VIDEOS, PASSES), VIDEOS)
    sizes: list[int] = []
    for name, step in steps.items():
        before = (root / schema.MANIFEST).stat().st_mtime_ns if sizes else 0
        step()
        sizes.append(len(schema.read_manifest(root).shards))
        if name == "finalise_nothing_new":
            assert (root / schema.MANIFEST).stat().st_mtime_ns == before
    assert sizes == [2, 2, 4, 4, 6, 6]
    data = ShardSet(root)
    assert data.manifest.complete and len(data) == VIDEOS * PASSES and data.manifest.counts["ok"] == VIDEOS
    assert data.video[-1] == name_of(VIDEOS - 1)


def test_a_whole_set_opens(tmp_path: Path) -> None:
    assert write_set(tmp_path / "set", VIDEOS, PASSES) == VIDEOS * PASSES
    data = ShardSet(tmp_path / "set")
    assert data.manifest.complete and len(data) == VIDEOS * PASSES
    cost = cost_of(lambda: float(len(ShardSet(tmp_path / "set"))))
    assert cost.cpu_s > 0 and cost.found == VIDEOS * PASSES


def test_a_set_that_is_made_at_once_is_intact(tmp_path: Path) -> None:
    write_set(tmp_path, 300, 2)
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

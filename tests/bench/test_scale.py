"""The made-up set of bench/scale.py is a set to the product's own code, and each of its steps does what its name says."""

from __future__ import annotations

from pathlib import Path

from bench.scale import cost_of, name_of, steps_of, write_records
from pipeline.extract.plan import ChunkPlan
from shards import schema
from shards.reader import ShardSet


def test_the_steps_run_and_the_set_opens(tmp_path: Path) -> None:
    root = tmp_path / "set"
    plan = write_records(root, 300, 2)
    steps = steps_of(root, plan)
    steps["finalise_all_records"]()
    written = (root / schema.MANIFEST).stat().st_mtime_ns
    steps["finalise_nothing_new"]()
    assert (root / schema.MANIFEST).stat().st_mtime_ns == written, "nothing was new"
    data = ShardSet(root)
    assert len(data) == 600 and data.manifest.complete and data.video[-1] == name_of(299)
    assert data.manifest.counts["ok"] == 300 and data.keys[256] == "000001-00-0000"
    made = steps["plan_continued"]()
    assert isinstance(made, ChunkPlan) and made.listed == plan.listed and not made.missing(root)
    assert cost_of(steps["open_set"]).cpu_s > 0

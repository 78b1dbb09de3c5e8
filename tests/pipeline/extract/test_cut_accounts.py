"""Shot cuts through a whole extraction: rejects by reason, anchors that were not to be drawn, still pairs with their statistics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.inspect.statistics import statistics_of
from shards import schema
from shards.finalize import finalize
from shards.reader import ShardSet
from tests.pipeline.video.test_cuts import montage, shot, write

pytest.importorskip("scenedetect", reason="PySceneDetect is not installed")


def test_every_drop_is_counted_by_reason(tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "set"
    videos.mkdir()
    write(videos / "one-shot.mp4", shot(1, 12))
    write(videos / "two-shots.mp4", montage(10, 12))
    write(videos / "montage.mp4", montage(7, 7, 7, 7))
    write(videos / "torn.mp4", montage(4, 4))
    write(videos / "still.mp4", [np.full((96, 128, 3), 99, np.uint8)] * 12)
    options = f"--dataset folder --root {videos} --out {out} --image-size 64 --flow-size 32 --passes 2 --workers 1"
    cuts = "--cuts content --max-cuts-per-minute 60"
    result = CliRunner().invoke(main, ["extract", *options.split(), *cuts.split()])
    assert result.exit_code == 0, result.output
    rows = {row["video"]: row for row in pq.read_table(out / schema.VIDEOS).to_pylist()}
    assert {name: row["reason"] for name, row in rows.items()} == {
        "one-shot": "",
        "two-shots": "",
        "montage": "many_cuts",
        "torn": "only_across_cuts",
        "still": "",
    }
    assert (
        rows["two-shots"]["detail"] == "1 cuts; windows of 4 of 18 anchors cross them"
        and not rows["one-shot"]["detail"]
    )
    manifest = ShardSet(out).manifest
    assert manifest.counts["rejected"] == {"many_cuts": 1, "only_across_cuts": 1}
    assert manifest.counts["across_cuts"] == 4 and ", 4 anchors across cuts" in result.output
    assert manifest.settings.cut_detector == "content" and manifest.settings.cut_threshold == 27.0
    index = pq.read_table(out / schema.INDEX).to_pylist()
    still = [row for row in index if row["video"] == "still"]
    assert len(still) == 2 and all(status == schema.STILL for row in still for status in row["status"])
    assert all(std is not None and std < schema.NOISE_FLOOR_PX for row in still for std in row["std_dx_px"])
    assert all(frame not in (8, 9, 10, 11) for row in index if row["video"] == "two-shots" for frame in [row["frame"]])
    summed = statistics_of(str(out), manifest)
    assert (summed.cuts, summed.cut_videos, summed.across, summed.anchors) == (1, 1, 4, 18)
    assert summed.samples_still == sum(set(row["status"]) == {schema.STILL} for row in index) >= len(still)
    assert summed.rejected == {"many_cuts": 1, "only_across_cuts": 1}
    refused = CliRunner().invoke(main, ["extract", *options.split(), "--cuts", "adaptive"])
    assert refused.exit_code == 1 and "cut_detector: 'content' in the set, 'adaptive' asked for" in refused.output
    alone = CliRunner().invoke(main, ["plan", *options.split(), "--cut-threshold", "3"])
    assert alone.exit_code == 1 and "needs a detector of cuts" in alone.output


def test_records_from_before_it_was_noted_give_no_total(tmp_path: Path) -> None:
    """A sum over half of the videos would be a lie; the set stays readable."""
    videos, out = tmp_path / "videos", tmp_path / "set"
    videos.mkdir()
    write(videos / "two-shots.mp4", montage(10, 12))
    write(videos / "one-shot.mp4", shot(1, 12))
    options = f"--dataset folder --root {videos} --out {out} --image-size 64 --flow-size 32 --passes 1 --workers 1 --cuts content"
    assert CliRunner().invoke(main, ["extract", *options.split()]).exit_code == 0
    manifest = ShardSet(out).manifest
    assert manifest.counts["across_cuts"] == 4
    record = out / schema.RECORDS / "videos" / "000000.json"
    rows = json.loads(record.read_text())
    rows[0].pop("across_cuts")
    record.write_text(json.dumps(rows))
    plan = pq.read_table(out / schema.VIDEOS).select(["video", "path", "chunk", "position"]).to_pylist()
    (out / schema.MANIFEST).unlink()
    again = finalize(out, manifest.settings, manifest.chunks, manifest.passes, plan)
    assert "across_cuts" not in again.counts and again.counts["ok"] == 2 and len(ShardSet(out)) == len(rows)

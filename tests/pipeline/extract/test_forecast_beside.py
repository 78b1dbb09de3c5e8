"""A forecast beside what came: a verdict only where the sample was large enough for a range."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.extract.forecast import Measured, Range, VideoMeasured, Work, forecast
from pipeline.extract.forecast_beside import Beside, Kept, beside, keep
from shards.reader import ShardSet
from shards.schema import Manifest
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import make_videos, request

VIDEOS = 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """Six videos, one of which is empty."""
    videos = make_videos(tmp_path_factory.mktemp("clips") / "videos", VIDEOS - 1)
    (videos / "empty.mp4").write_bytes(b"")
    out = tmp_path_factory.mktemp("sets") / "set"
    run_here(request(videos, out, passes=1))
    return out, ShardSet(out).manifest


def kept(manifest: Manifest, sampled: int) -> Kept:
    """Of a sample whose samples of a few bytes are far from those that came, without rejects."""
    sample = tuple(
        VideoMeasured(f"v{i}", 0.5, pairs={"stored": 4}, windows=1, sample_bytes=(9 + i,)) for i in range(sampled)
    )
    found = forecast(Measured(sample, ((4, 0.1), (4, 0.2)), "cpu", 1.0), Work(VIDEOS, 1, 4))
    seconds = Range.exactly(1e6) if sampled < 5 else Range(0.9e6, 1e6, 1.1e6)
    return Kept(
        "then", manifest.settings, 1, VIDEOS, sampled, found.rejected, found.stored, seconds, found.bytes
    )  # fmt: skip


def verdicts(found: Beside | None) -> dict[str, bool | None]:
    assert found is not None
    return {row.what: row.inside for row in found.rows}


def notes(found: Beside | None) -> dict[str, str]:
    assert found is not None
    lines = found.lines()[1:]
    return {row.what: line.rpartition(row.came)[2].strip() for row, line in zip(found.rows, lines, strict=True)}


def test_a_sample_too_small_for_ranges_gives_no_verdict(made: tuple[Path, Manifest]) -> None:
    out, manifest = made
    keep(out, kept(manifest, 2))
    found = beside(out, manifest)
    assert verdicts(found) == {"videos": True, "rejected": None, "pairs stored": None, "time": None, "GiB": None}
    assert notes(found)["rejected"] == "no range", "none was expected, one came"
    keep(out, kept(manifest, 5))
    found = beside(out, manifest)
    assert verdicts(found)["GiB"] is False and notes(found)["GiB"] == "outside", "five videos have a range"


def test_what_the_plan_knows_has_a_verdict_however_few_were_measured(made: tuple[Path, Manifest]) -> None:
    out, manifest = made
    few = kept(manifest, 2)
    keep(out, replace(few, videos=7))
    assert verdicts(beside(out, manifest))["videos"] is False
    keep(out, replace(few, sampled=VIDEOS))
    assert verdicts(beside(out, manifest))["rejected"] is False, "all of them were looked at"

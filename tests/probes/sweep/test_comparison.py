"""Means, differences and what counts as inside the seeds' spread, against numbers computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.sweep.comparison import Line, Spread, compare, difference, spread, verdict_of
from tests.probes.sweep.small_record import row, write_record


def lines_of(tmp_path: Path, baseline: list[float], other: list[float], metric: str = "JF") -> list[Line]:
    seeds = tuple(range(len(baseline)))
    record = write_record(tmp_path, row("full", seeds), row("other", seeds))
    figures = {
        name: {seed: {"JF": value, "J": value + 1.0} for seed, value in enumerate(values)}
        for name, values in (("full", baseline), ("other", other))
    }
    return compare(record, metric, figures)


def test_spread_of_figures() -> None:
    assert spread([3.0, 1.0, 5.0]) == Spread(3.0, 1.0, 5.0, 3)
    assert spread([]) is None


def test_differences_are_taken_seed_by_seed() -> None:
    """60 -> 63, 50 -> 52; seed 2 has no partner, seed 3 none either. Of the means alone it would be 57.5 - 48.3."""
    change = difference({0: 63.0, 1: 52.0, 3: 57.5}, {0: 60.0, 1: 50.0, 2: 35.0})
    assert change == Spread(2.5, 2.0, 3.0, 2)
    assert difference({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("baseline", "other", "verdict"),
    [
        # differences +4.0, +4.4, +4.2: mean 4.2; ranges 0.4 (differences), 2.0 (baseline), 2.2 (row)
        ([50.0, 52.0, 51.0], [54.0, 56.4, 55.2], "above"),
        ([54.0, 56.4, 55.2], [50.0, 52.0, 51.0], "below"),
        # +1, -2, +4: mean 1.0, range of the differences 6
        ([50.0, 50.0, 50.0], [51.0, 48.0, 54.0], "inside the spread"),
        # +1.0, +1.1, +1.2 agree, but the baseline's own range is 5: another choice of seeds moves it by more
        ([50.0, 55.0, 52.0], [51.0, 56.1, 53.2], "inside the spread"),
        # +6, +3: mean 4.5; ranges 3 (differences), 0 (baseline), 3 (row)
        ([50.0, 50.0], [56.0, 53.0], "above"),
        # +6, +2: mean 4, range of the differences exactly 4
        ([50.0, 50.0], [56.0, 52.0], "inside the spread"),
        ([50.0, 50.0], [50.0, 50.0], "inside the spread"),
        ([50.0], [60.0], "one seed"),
    ],
)
def test_the_mark_of_a_difference(tmp_path: Path, baseline: list[float], other: list[float], verdict: str) -> None:
    first, second = lines_of(tmp_path, baseline, other)
    assert first.verdict == "baseline" and first.difference is None
    assert second.verdict == verdict


def test_nothing_is_said_of_what_was_not_measured() -> None:
    assert verdict_of(None, None, None) == "not judged"


def test_other_metrics_come_along_as_means(tmp_path: Path) -> None:
    _, other = lines_of(tmp_path, [50.0, 51.0], [54.0, 56.0])
    assert other.figure == Spread(55.0, 54.0, 56.0, 2) and other.others == {"J": 56.0}


def test_the_metric_must_have_been_measured(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"probe\.metric = 'KF' is not among the stored figures of the probe 'vos' .JF, J"
    ):
        lines_of(tmp_path, [1.0], [1.0], metric="KF")


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    record = write_record(
        tmp_path,
        row("full"),
        row("broken", status="failed", error="the disk is full"),
        row("late", status="waiting"),
        row("fresh", (0,), status="waiting", trained_by="bench/online_trainer.py"),
        row("raft", seeds=(), left_out="needs the shard set RAFT"),
        row("random", source="random_decoder", trained=False, status="waiting"),
    )
    lines = compare(record, "JF", {"full": {0: {"JF": 1.0}}})
    assert [line.note for line in lines] == [
        "seed 1 not judged yet",
        "seed 0 failed: the disk is full; seed 1 failed: the disk is full",
        "seed 0, 1 not trained yet",
        "seed 0 not trained yet (by bench/online_trainer.py)",
        "left out: it needs the shard set RAFT",
        "seed 0, 1 not judged yet",
    ]
    assert [line.verdict for line in lines] == ["baseline", *["not judged"] * 5]

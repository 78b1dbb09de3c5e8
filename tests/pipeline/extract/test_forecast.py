"""From a sample to all videos: hand-made samples with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.extract.forecast import (
    Forecast,
    Machine,
    Measured,
    Range,
    Stages,
    VideoMeasured,
    Work,
    break_even,
    forecast,
    wall_time,
    wilson,
)

WORK = Work(videos=100, passes=16, neighbours=4)


def video(name: str, decode_s: float = 0.5, stored: int = 8, size: int = 1000) -> VideoMeasured:
    """Two windows went through flow; `stored` of their 8 pairs are kept."""
    return VideoMeasured(
        name,
        decode_s,
        decode_one_s=0.2,
        pairs={"stored": stored, "non_finite": 8 - stored},
        windows=2,
        encode_s=0.01,
        read_s=0.001,
        sample_bytes=(size, size),
    )


def sample(*videos: VideoMeasured) -> Measured:
    return Measured(videos, calls=((8, 0.4), (8, 0.4)), device="cpu", seconds=3.0)


def even() -> tuple[Measured, Forecast]:
    measured = sample(*(video(f"v{i}") for i in range(10)))
    return measured, forecast(measured, WORK)


def test_a_sample_without_spread_is_multiplied() -> None:
    _, found = even()
    assert found.pairs.best == 100 * 16 * 4 and found.stored.best == found.pairs.best
    assert (
        found.samples.best == 1600 and found.bytes.best == 1600 * 1000 and found.sample_bytes == Range(1000, 1000, 1000)
    )
    assert found.stages.decoding_s.best == pytest.approx(50) and found.stages.encoding_s.best == pytest.approx(16)
    assert found.stages.flow_s.best == pytest.approx(6400 * 0.05) and found.pairs_per_s.best == pytest.approx(20)


def test_rejects_of_the_sample_are_known_and_the_rest_has_wilsons_range() -> None:
    videos = [video(f"v{i}") for i in range(9)] + [VideoMeasured("bad", 0.1, "corrupt")]
    found = forecast(sample(*videos), WORK)
    low, high = wilson(1, 10)
    assert found.rejected == Range(1 + 90 * low, 10, 1 + 90 * high)
    assert (
        found.ok.best == 90 and found.ok.low == 100 - found.rejected.high and found.ok.high == 100 - found.rejected.low
    )
    assert found.stages.decoding_s.best == pytest.approx(100 * (9 * 0.5 + 0.1) / 10), (
        "rejected videos take time as well"
    )
    whole = forecast(sample(*videos), Work(10, 16, 4))
    assert whole.rejected == Range(1, 1, 1) and whole.samples == Range(9 * 16, 9 * 16, 9 * 16), (
        "nothing is left to guess"
    )


@pytest.mark.parametrize(
    ("part", "of", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (1, 20, 0.0089, 0.2361)],
)
def test_wilsons_interval(part: int, of: int, low: float, high: float) -> None:
    assert wilson(part, of) == pytest.approx((low, high), abs=2e-4)


def test_pairs_that_are_not_stored_are_left_out() -> None:
    found = forecast(sample(*(video(f"v{i}", stored=6) for i in range(8))), WORK)
    assert found.stored.best == pytest.approx(0.75 * found.pairs.best)


def test_more_passes_than_a_block_decode_again() -> None:
    measured, _ = even()
    twice = forecast(measured, Work(100, 64, 4))
    assert twice.stages.decoding_s.best == pytest.approx(2 * 50)


def test_the_range_covers_the_truth_as_often_as_it_says() -> None:
    """Decoding times as they are: many short, few long. A bootstrap of 30 falls a little short of 95 %."""
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        times = draw.lognormal(0, 0.7, 30)
        found = forecast(sample(*(video(f"v{i}", float(t)) for i, t in enumerate(times))), WORK).stages.decoding_s
        assert found.low <= found.best <= found.high
        covered += found.low <= 100 * math.exp(0.7**2 / 2) <= found.high
    assert 80 <= covered <= 99


def test_few_videos_have_no_ranges() -> None:
    found = forecast(sample(video("a", 0.5), video("b", 5.0)), WORK)
    assert found.stages.decoding_s.low == found.stages.decoding_s.high and found.rejected == Range(0, 0, 0)


def test_a_sample_without_flow_is_refused_with_its_reasons() -> None:
    with pytest.raises(ValueError, match=r"none of the 1 videos of the sample yields flow \(corrupt 1\)"):
        forecast(Measured((VideoMeasured("a", 0.1, "corrupt"),), (), "cpu", 1.0), WORK)


def stages(decoding: float, flow: float, encoding: float) -> Stages:
    return Stages(*(Range(0.9 * s, s, 1.1 * s) for s in (decoding, flow, encoding)))


@pytest.mark.parametrize(
    ("machine", "seconds", "limit"),
    [
        (Machine(4, 4), (100 + 600 + 60) / 4, "the cores"),
        (Machine(8, 2), (600 + 60) / 2, "flow and encoding, for want of workers"),
        (Machine(16, 16, 1), 600, "flow on the GPUs"),
        (Machine(16, 16, 8), 75, "flow on the GPUs"),
        (Machine(2, 2, 8), 80, "decoding and encoding on the cores"),
        (Machine(16, 1, 8), 100, "decoding, for want of workers"),
    ],
)
def test_the_slowest_stage_decides(machine: Machine, seconds: float, limit: str) -> None:
    found = wall_time(stages(100, 600, 60), machine)
    assert found.seconds.best == pytest.approx(seconds) and found.limit.startswith(limit)
    assert found.seconds.low == pytest.approx(0.9 * seconds) and found.seconds.high == pytest.approx(1.1 * seconds)


@pytest.mark.parametrize("machine", [Machine(2, 2), Machine(16, 16, 4)])
def test_the_break_even_epoch_is_where_the_sums_meet(machine: Machine) -> None:
    measured, found = even()
    even_at = break_even(measured, found, machine, found.stages, train_samples_per_s=30.0)
    extract_s, step_s = wall_time(found.stages, machine).seconds.best, 1 / 30
    if machine.gpus:
        online_s, cached_s = max(step_s + 0.05 / 4, 0.2 / 16), max(step_s, 0.001 / 16)
    else:
        online_s, cached_s = step_s + (0.05 + 0.2) / 2, step_s + 0.001 / 2
    epochs = np.arange(1, 2000)
    cheaper = extract_s + epochs * 100 * cached_s <= epochs * 100 * online_s
    assert even_at.epoch is not None and math.ceil(even_at.epoch) == epochs[cheaper][0]
    assert even_at.online_extra_s == pytest.approx(online_s - cached_s)


def test_on_gpus_the_rate_of_training_plays_a_part_only_where_decoding_is_the_bottleneck() -> None:
    measured, found = even()
    fed, starved = Machine(16, 16, 1), Machine(1, 1, 8)
    unknown, known = (break_even(measured, found, fed, found.stages, rate).epoch for rate in (None, 10.0))
    assert unknown == pytest.approx(known)
    slow, fast = (break_even(measured, found, starved, found.stages, rate).online_extra_s for rate in (3.0, 1000.0))
    unsaid = break_even(measured, found, starved, found.stages, None)
    ends = [break_even(measured, found, starved, found.stages, rate).epoch for rate in (1e9, 3.0)]
    assert [unsaid.earliest, unsaid.epoch] == pytest.approx(ends) and slow < fast / 10
    assert slow == pytest.approx(0.05 / 8) and fast == pytest.approx(0.2 - 0.001), (
        "decoding one window takes 0.2 s of the core"
    )


def test_where_decoding_is_all_that_counts_caching_may_never_pay() -> None:
    measured, found = even()
    free = Stages(found.stages.decoding_s, Range(0, 0, 0), found.stages.encoding_s)
    assert break_even(measured, found, Machine(16, 16, 1), free, None).epoch is None

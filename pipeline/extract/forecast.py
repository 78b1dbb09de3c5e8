"""What an extraction will take, from what a sample of its videos took: videos, pairs, time, bytes, and from which epoch on it has paid.

A `Measured` sample (`forecast_sample`) and the size of the plan come in, a `Forecast` goes out; nothing is read or run here.

Time is that of the slowest stage, because stages overlap (docs/extraction-engine.md):

    flow on a CPU   max(decoding / workers, (flow + encoding) / workers, (decoding + flow + encoding) / cores)
    flow on n GPUs  max(flow / n, decoding / workers, encoding / workers, (decoding + encoding) / cores)

each in seconds of one process for all videos. Ranges are 95 % intervals of the sample: of a mean by bootstrap over its videos, of a share
by Wilson's formula. Where figures are multiplied, all are taken at the same end at once, so a product's range is wider than 95 %.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.extract.batches import MOST_PASSES

FEWEST_FOR_RANGES = 5
RESAMPLES = 500
_Z = 1.96


@dataclass(frozen=True)
class Range:
    """A figure that is not negative, between bounds. Sums and products keep bounds with bounds."""

    low: float
    best: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.best + other.best, self.high + other.high)

    def __mul__(self, other: Range | float) -> Range:
        if not isinstance(other, Range):
            other = Range(other, other, other)
        return Range(self.low * other.low, self.best * other.best, self.high * other.high)

    @staticmethod
    def exactly(value: float) -> Range:
        return Range(value, value, value)


@dataclass(frozen=True)
class VideoMeasured:
    """One video of the sample. reason: of its rejection, "" where it yields windows. decode_s: one sweep for the passes of a block.

    decode_one_s: a sweep for one pass. Of those of its windows that went through flow: pairs by status, encode_s and read_s per window
    (to encode and store it; to decode what a training step needs of it), sample_bytes of each that was stored.
    """

    video: str
    decode_s: float
    reason: str = ""
    decode_one_s: float = 0.0
    pairs: Mapping[str, int] | None = None
    windows: int = 0
    encode_s: float = 0.0
    read_s: float = 0.0
    sample_bytes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Measured:
    """A sample. calls: (pairs, seconds) of each timed call of the estimator. device: where it ran. seconds: that measuring took."""

    videos: tuple[VideoMeasured, ...]
    calls: tuple[tuple[int, float], ...]
    device: str
    seconds: float

    @property
    def rejected(self) -> dict[str, int]:
        """Videos by reason."""
        return dict(sorted(Counter(v.reason for v in self.videos if v.reason).items()))


@dataclass(frozen=True)
class Work:
    """All that is to be made: videos, passes of each, pairs per window; share: of it that has not landed yet."""

    videos: int
    passes: int
    neighbours: int
    share_left: float = 1.0


@dataclass(frozen=True)
class Machine:
    """cores that processes share, workers of each kind, gpus that run flow (0: the cores do)."""

    cores: int
    workers: int
    gpus: int = 0


@dataclass(frozen=True)
class Stages:
    """Seconds of one process for all videos."""

    decoding_s: Range
    flow_s: Range
    encoding_s: Range


@dataclass(frozen=True)
class WallTime:
    """limit: the stage that decides."""

    seconds: Range
    limit: str


@dataclass(frozen=True)
class BreakEven:
    """Against flow inside training on the same machine. online_extra_s: what a sample costs more there than from shards.

    epoch: one pair of each video; None where flow costs a training step nothing, so that it never does. earliest: the same for a
    training that never waits for anything but its data; it differs where the rate of training is not known and decoding cannot keep up
    with every rate.
    """

    online_extra_s: float
    epoch: float | None
    earliest: float | None


@dataclass(frozen=True)
class Forecast:
    """ok, rejected, samples, pairs (computed), stored (of them trained on or still), bytes: of the whole set. sample_bytes: each."""

    work: Work
    rejected: Range
    ok: Range
    samples: Range
    pairs: Range
    stored: Range
    sample_bytes: Range
    bytes: Range
    pairs_per_s: Range
    stages: Stages


def forecast(measured: Measured, work: Work) -> Forecast:
    """The sample carried over to all videos. Raises ValueError where no window of it has flow."""
    with_flow = [v for v in measured.videos if v.windows]
    if not with_flow or not measured.calls:
        reasons = ", ".join(f"{reason} {n}" for reason, n in measured.rejected.items())
        everything = len(measured.videos) >= work.videos
        way_out = "look into these videos" if everything else "give a larger --sample, or look into these videos"
        raise ValueError(f"none of the {len(measured.videos)} videos of the sample yields flow ({reasons}); {way_out}")
    videos, sample = work.videos, measured.videos
    few = len(sample) < FEWEST_FOR_RANGES
    rejected = _expected_rejects(sum(bool(v.reason) for v in sample), len(sample), videos, few)
    ok = Range(videos - rejected.high, videos - rejected.best, videos - rejected.low)
    windows = ok * float(work.passes)
    kept = _ratio(with_flow, lambda v: len(v.sample_bytes), lambda v: v.windows, few)
    each = _ratio(
        [v for v in with_flow if v.sample_bytes], lambda v: sum(v.sample_bytes), lambda v: len(v.sample_bytes), few
    )
    stored = _ratio(with_flow, _stored_pairs, lambda v: sum((v.pairs or {}).values()), few)
    per_pair = _of_calls(measured.calls, few)
    pairs = windows * float(work.neighbours)
    sweeps = float(math.ceil(work.passes / MOST_PASSES))
    stages = Stages(
        decoding_s=_ratio(sample, lambda v: v.decode_s, lambda _: 1.0, few) * (sweeps * videos),
        flow_s=pairs * per_pair,
        encoding_s=windows * _ratio(with_flow, lambda v: v.encode_s * v.windows, lambda v: v.windows, few),
    )
    return Forecast(
        work=work,
        rejected=rejected,
        ok=ok,
        samples=windows * kept,
        pairs=pairs,
        stored=pairs * stored,
        sample_bytes=each,
        bytes=windows * kept * each,
        pairs_per_s=Range(1 / per_pair.high, 1 / per_pair.best, 1 / per_pair.low),
        stages=stages,
    )


def wall_time(stages: Stages, machine: Machine) -> WallTime:
    """How long the stages take beside each other, and which decides."""
    decoding, flow, encoding = stages.decoding_s, stages.flow_s, stages.encoding_s
    cores, workers = 1 / machine.cores, 1 / machine.workers
    if machine.gpus:
        found = {
            "flow on the GPUs": flow * (1 / machine.gpus),
            "decoding and encoding on the cores": (decoding + encoding) * cores,
            "decoding, for want of workers": decoding * workers,
            "encoding, for want of workers": encoding * workers,
        }
    else:
        found = {
            "the cores, which do everything": (decoding + flow + encoding) * cores,
            "flow and encoding, for want of workers": (flow + encoding) * workers,
            "decoding, for want of workers": decoding * workers,
        }
    limit = max(found, key=lambda name: found[name].best)
    bounds = [max(r.low for r in found.values()), found[limit].best, max(r.high for r in found.values())]
    return WallTime(Range(*bounds), limit)


def break_even(
    measured: Measured, found: Forecast, machine: Machine, stages: Stages, train_samples_per_s: float | None
) -> BreakEven:
    """From which epoch on the extraction has paid for itself, extraction included.

        extraction / (online - cached)       seconds of this machine; an epoch is one pair of each video

    Cached training reads a sample (picture, one flow); online training decodes one window and computes one pair per sample, every epoch.
    On a CPU both come on top of the step, whatever that takes. On GPUs flow comes on top of the step (1 / train_samples_per_s, which then
    cancels out) unless decoding on the cores is slower than both: without a rate the answer lies between a training that is so slow that
    decoding keeps up (epoch), and one whose steps take no time (earliest).
    """
    flow_s = stages.flow_s.best / found.pairs.best
    with_flow = [v for v in measured.videos if v.windows]
    decode_s = float(np.mean([v.decode_one_s for v in with_flow]))
    read_s = float(np.mean([v.read_s for v in with_flow]))

    def extra_s(step_s: float) -> float:
        if not machine.gpus:
            return (flow_s + decode_s - read_s) / machine.cores
        online_s = max(step_s + flow_s / machine.gpus, decode_s / machine.cores)
        return online_s - max(step_s, read_s / machine.cores)

    def epoch(saved_s: float) -> float | None:
        return wall_time(stages, machine).seconds.best / (found.ok.best * saved_s) if saved_s > 0 else None

    if train_samples_per_s is not None:
        saved_s = extra_s(1 / train_samples_per_s)
        return BreakEven(saved_s, epoch(saved_s), epoch(saved_s))
    slow = extra_s(decode_s + read_s)  # a step that nothing on the cores is slower than
    return BreakEven(slow, epoch(slow), epoch(extra_s(0.0)))


def wilson(part: int, of: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    share, square = part / of, _Z**2
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = _Z * math.sqrt(share * (1 - share) / of + square / (4 * of**2)) / (1 + square / of)
    return max(0.0, middle - half), min(1.0, middle + half)


def _expected_rejects(found: int, sampled: int, videos: int, few: bool) -> Range:
    """Those of the sample are known; the range is of the rest."""
    rest = videos - sampled
    low, high = (found / sampled,) * 2 if few else wilson(found, sampled)
    return Range(found + rest * low, found + rest * found / sampled, found + rest * high)


def _ratio(
    videos: Sequence[VideoMeasured],
    above: Callable[[VideoMeasured], float],
    below: Callable[[VideoMeasured], float],
    few: bool,
) -> Range:
    """Sum of one figure over the sum of another, resampled by video: windows of a video are alike."""
    if not videos:
        return Range.exactly(0.0)
    return _bootstrap(np.array([[above(v), below(v)] for v in videos], np.float64), few)


def _of_calls(calls: Sequence[tuple[int, float]], few: bool) -> Range:
    """Seconds per pair."""
    return _bootstrap(np.array([[seconds, pairs] for pairs, seconds in calls], np.float64), few)


def _bootstrap(pairs: NDArray[np.float64], few: bool) -> Range:
    """Ratio of the columns' sums, with the 2.5th and 97.5th percentile of resampled rows."""
    best = float(pairs[:, 0].sum() / pairs[:, 1].sum())
    if few or len(pairs) < 2:
        return Range.exactly(best)
    rows = np.random.default_rng(0).integers(0, len(pairs), (RESAMPLES, len(pairs)))
    sums = pairs[rows].sum(axis=1)
    low, high = np.percentile(sums[:, 0] / sums[:, 1], (2.5, 97.5))
    return Range(min(float(low), best), best, max(float(high), best))


def _stored_pairs(video: VideoMeasured) -> int:
    found = video.pairs or {}
    return found.get("stored", 0) + found.get("still", 0)

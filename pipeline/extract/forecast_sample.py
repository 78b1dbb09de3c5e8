"""A few videos of a plan through the real stages, one after the other and timed: what a forecast is made from.

Comes in: a request and its plan. Goes out: `Measured`. Decoding runs in the same killable process as in an extraction, flow in batches of
the size that an extraction would make, samples are encoded and written as shards into a folder that is gone afterwards.
"""

from __future__ import annotations

import math
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pipeline.extract.batches import MOST_PASSES, windows_per_call
from pipeline.extract.blame import CarefulEstimator, FlowFailure
from pipeline.extract.encode import encode_sample
from pipeline.extract.forecast import Measured, VideoMeasured
from pipeline.extract.plan import ChunkPlan, PlannedVideo
from pipeline.extract.run import ExtractionRequest
from pipeline.extract.stages import FLOW_FAILED
from pipeline.flow.estimator import EstimatorChoice, PairsTogether
from pipeline.video.datasets import Video
from pipeline.video.decoder import DecodedAnchor, Decoder
from pipeline.video.rejects import Reject
from pipeline.window import WindowFlow
from shards import schema
from shards.codec import decode_flow
from shards.reader import decode_image
from shards.schema import Settings
from shards.writer import ChunkWriter, EncodedSample

DECODING_SHARE = 0.6
"""Of the time for measuring; the rest is for flow."""
TIMED_CALLS = 4
"""Full batches that there shall be windows for."""
MOST_WINDOWS = 512
"""That are kept for flow, some 3 MB each, unless TIMED_CALLS ask for more: of the videos after them only decoding is measured."""


@dataclass
class _Taken:
    """A video that yields windows: some of them, and what became of them."""

    measured: VideoMeasured
    anchors: list[DecodedAnchor]
    flows: list[WindowFlow] = field(default_factory=list)
    failed: bool = False


def measure(
    request: ExtractionRequest,
    plan: ChunkPlan,
    *,
    videos: int,
    seconds: float,
    local: Callable[[Video], AbstractContextManager[Video]] = nullcontext,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Measured:
    """Measure at most so many videos, drawn at random, and stop beginning new work after about so many seconds.

    One video is decoded and two batches are run at least. local: a video where it can be decoded, while it is. tell: called with videos
    decoded and chosen. Raises what building or running the estimator raises.
    """
    began = time.perf_counter()
    chosen = draw(plan.current, videos, plan.settings.seed)
    batch = windows_per_call(request.estimator, len(plan.settings.offsets), request.batch)
    wanted = min(plan.passes, max(2, math.ceil(TIMED_CALLS * batch / max(1, len(chosen)))))
    rejected: list[VideoMeasured] = []
    taken: list[_Taken] = []
    room = max(MOST_WINDOWS, TIMED_CALLS * batch)
    with Decoder() as decoder:
        for done, planned in enumerate(chosen):
            if done and time.perf_counter() - began > DECODING_SHARE * seconds:
                break
            found = _decode(decoder, request, plan, planned, min(wanted, room), local)
            if isinstance(found, _Taken):
                taken.append(found)
                room -= len(found.anchors)
            else:
                rejected.append(found)
            tell(done + 1, len(chosen))
    calls: list[tuple[int, float]] = []
    if taken:
        with _threads_of_a_worker(request.estimator):
            calls = _run_flow(CarefulEstimator(request.estimator.build()), taken, batch, began + seconds)
    measured = [_encode(video, plan.settings) for video in taken]
    device = request.estimator.device if isinstance(request.estimator, PairsTogether) else "cpu"
    return Measured((*rejected, *measured), tuple(calls), device, time.perf_counter() - began)


def draw(videos: Sequence[PlannedVideo], count: int, seed: int) -> list[PlannedVideo]:
    """So many of them at random, in random order, so that the first few are a random sample too."""
    order = np.random.default_rng([seed, len(videos)]).permutation(len(videos))[:count]
    return [videos[int(i)] for i in order]


def _decode(
    decoder: Decoder,
    request: ExtractionRequest,
    plan: ChunkPlan,
    planned: PlannedVideo,
    wanted: int,
    local: Callable[[Video], AbstractContextManager[Video]],
) -> _Taken | VideoMeasured:
    passes = range(min(plan.passes, MOST_PASSES))
    video, settings, deadline_s = planned.video, plan.settings, request.deadline_s
    try:
        with local(video) as here:
            found = decoder.windows(here, passes, settings, deadline_s=deadline_s)
            kept = set(np.linspace(0, len(passes) - 1, min(wanted, len(passes))).astype(int).tolist())
            anchors = [anchor for number, anchor in enumerate(found.anchors) if number in kept]
            alone = decoder.windows(here, [int(passes[-1])], settings, deadline_s=deadline_s)
    except Reject as refusal:
        return VideoMeasured(video.id, refusal.seconds, refusal.reason)
    return _Taken(VideoMeasured(video.id, found.decode_s, decode_one_s=alone.decode_s), anchors)


def _run_flow(
    estimator: CarefulEstimator, taken: Sequence[_Taken], batch: int, until: float
) -> list[tuple[int, float]]:
    """Flow of the windows of each video, in turn, until time is up; (pairs, seconds) of every call but a first one that warms up."""
    most = max(len(video.anchors) for video in taken)
    order = [(video, turn) for turn in range(most) for video in taken if turn < len(video.anchors)]
    calls: list[tuple[int, float]] = []
    for start in range(0, len(order), batch):
        if calls and time.perf_counter() > until:
            break
        part = order[start : start + batch]
        windows = [video.anchors[turn].window for video, turn in part]
        if not start:
            estimator.estimate(windows)
        began = time.perf_counter()
        answers = estimator.estimate(windows)
        calls.append((sum(len(window.offsets) for window in windows), time.perf_counter() - began))
        for (video, _), answer in zip(part, answers, strict=True):
            if isinstance(answer, FlowFailure):
                video.failed = True
            else:
                video.flows.append(answer)
    return calls


def _encode(video: _Taken, settings: Settings) -> VideoMeasured:
    """Encode, store and read back what has flow."""
    if video.failed:
        return replace(video.measured, reason=FLOW_FAILED)
    pairs = list(zip(video.anchors, video.flows, strict=False))  # flow stops where time was up
    if not pairs:
        return video.measured
    with tempfile.TemporaryDirectory(prefix="flowfeat-plan-") as folder:
        began = time.perf_counter()
        writer = ChunkWriter(Path(folder), settings, 0, (0,))
        samples = [encode_sample(anchor, flow, settings) for anchor, flow in pairs]
        for position, sample in enumerate(samples):
            if any(data is not None for data in sample.flows):
                writer.add(0, position, sample)
        encode_s = (time.perf_counter() - began) / len(samples)
        writer.commit([])
        sizes = _sample_bytes(Path(folder) / schema.shard_path(0, 0))
    statuses = Counter(status for sample in samples for status in sample.pair_columns["status"])
    return replace(
        video.measured,
        pairs=dict(statuses),
        windows=len(samples),
        encode_s=encode_s,
        read_s=float(np.mean([_read_s(sample, settings) for sample in samples])),
        sample_bytes=tuple(sizes),
    )


def _sample_bytes(shard: Path) -> list[int]:
    """What each sample takes in its shard, headers and padding included."""
    found: Counter[str] = Counter()
    with tarfile.open(shard) as tar:
        for member in tar:
            found[member.name.partition(".")[0]] += tarfile.BLOCKSIZE * (1 + -(-member.size // tarfile.BLOCKSIZE))
    return list(found.values())


def _read_s(sample: EncodedSample, settings: Settings) -> float:
    """Seconds that decoding the picture and one flow takes, as a cached training step does."""
    side = settings.flow_size
    began = time.perf_counter()
    decode_image(sample.image, settings.image_size)
    stored = next((data for data in sample.flows if data is not None), None)
    if stored is not None:
        decode_flow(stored, (side, side))
    return time.perf_counter() - began


@contextmanager
def _threads_of_a_worker(choice: EstimatorChoice) -> Iterator[None]:
    """On a CPU every flow worker has one thread."""
    if not isinstance(choice, PairsTogether) or choice.device != "cpu":
        yield
        return
    import torch  # heavy, and loaded already by whoever chose a network

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

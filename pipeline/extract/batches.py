"""Which windows a flow network sees together: a rule of the list alone, so that a set does not depend on how it was made.

What a network says of a pair depends, in the last bits, on how many pairs run with it: kernels are chosen by shape. (Measured: with
raft-small on a CPU, batches of 1, 2 and 4 pairs agree bit by bit; 3, 8 and 32 differ from them and from each other. Which pairs are its
mates, and in which order, made no difference at equal size.) So batches must not be put together from whatever happens to be decoded.
The rule:

    A batch holds the windows of one pass of one chunk: those of the videos at positions [i*size, (i+1)*size) of the chunk.

Rejected videos leave holes. Nothing else enters: neither the number of processes and devices, nor which chunks and passes had landed
before, nor how fast a video was decoded. A run that was killed and continued, a set extended from 8 passes to 16, and parts of a list on
several machines of one kind give the bytes of one run. That is why a batch crosses neither chunks nor passes; a chunk of 256 videos holds
1,024 pairs of each pass, four full batches of 256. `size` is what the estimator asks for (its pairs per run over the number of
offsets) unless --batch says otherwise.

Estimators that look at each window alone (`dis`, `truth`) get the windows of one video, which wait for nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.extract.runner import ChunkJob
from pipeline.flow.estimator import EstimatorChoice, PairsTogether

ALONE = 16
"""Windows per call of an estimator that looks at each alone."""

MOST_PASSES = 32
"""Passes of a chunk that are made, and have their shards open, at once; more are made one block after the other."""


@dataclass(frozen=True, order=True)
class Place:
    """One window of a job: the video-th of its videos, the turn-th of its passes."""

    video: int
    turn: int


def windows_per_call(choice: EstimatorChoice, n_offsets: int, asked: int | None) -> int:
    """How many windows the estimator shall be given at once. asked: what the user wants, or None."""
    if asked is not None:
        return asked
    return max(1, choice.batch_pairs // n_offsets) if isinstance(choice, PairsTogether) else ALONE


def blocks(job: ChunkJob, most_passes: int = MOST_PASSES) -> list[ChunkJob]:
    """The job as several jobs of at most so many passes each."""
    starts = range(0, len(job.passes), most_passes)
    return [replace(job, passes=tuple(job.passes[start : start + most_passes])) for start in starts]


def groups(job: ChunkJob) -> Iterator[range]:
    """Videos of the job (as indices) that have to be decoded before the first batch of them can run, in the plan's order."""
    size = job.batch if job.together else 1
    first = 0
    while first < len(job.videos):
        # By position in the chunk, not by index in the job: they are the same unless a job leaves out videos of its chunk.
        group = job.videos[first].position // size
        last = first
        while last < len(job.videos) and job.videos[last].position // size == group:
            last += 1
        yield range(first, last)
        first = last


def batches(job: ChunkJob, group: range, good: Sequence[int]) -> Iterator[list[Place]]:
    """What runs together of a group. good: those of its videos that could be decoded."""
    if job.together:
        for turn in range(len(job.passes)):
            batch = [Place(video, turn) for video in group if video in good]
            if batch:
                yield batch
        return
    for video in group:
        if video in good:
            for start in range(0, len(job.passes), job.batch):
                yield [Place(video, turn) for turn in range(start, min(start + job.batch, len(job.passes)))]

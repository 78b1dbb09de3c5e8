"""The extraction run: listing → plan → chunks in worker processes → a finished set.

Where data comes from: a video data set. Where it goes: a shard set. Rerunning the same command continues where
the last run stopped, by asking the set which (chunk, pass) have landed; asking for more passes extends it.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.extract.local import ChunkDone, Event, LocalRunner
from pipeline.extract.plan import Plan, make_plan, save_plan
from pipeline.extract.stages import ChunkJob, VideoReport
from pipeline.flow.estimator import EstimatorChoice, EstimatorOptions, choose
from pipeline.video.datasets import list_videos
from shards import schema
from shards.schema import Manifest, Settings
from shards.writer import finalize

PARTIAL_MANIFEST_EVERY_S = 60.0


@dataclass(frozen=True)
class Request:
    """What the command line asks for. passes: samples per video. batch: windows per call of the estimator."""

    dataset: str
    root: Path
    out: Path
    flow: str
    passes: int = 8
    list_file: Path | None = None
    options: EstimatorOptions = field(default_factory=EstimatorOptions)
    content: dict[str, Any] = field(default_factory=dict)
    workers: int = 1
    batch: int = 16
    deadline_s: float = 120.0

    def __post_init__(self) -> None:
        for name, low in (("passes", 1), ("workers", 1), ("batch", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {low}")
        if self.deadline_s <= 0:
            raise ValueError(f"deadline is {self.deadline_s} s; it must be positive")


@dataclass
class Tally:
    """Running totals of one run, for the progress line."""

    total: int
    chunks: int
    videos: set[str] = field(default_factory=set)
    rejects: Counter[str] = field(default_factory=Counter)
    pairs: Counter[str] = field(default_factory=Counter)
    chunks_done: int = 0
    began: float = field(default_factory=time.perf_counter)

    def add(self, report: VideoReport) -> None:
        if report.video in self.videos:  # a chunk that was tried again
            return
        self.videos.add(report.video)
        self.pairs.update(report.pairs)
        if report.status == schema.REJECTED:
            self.rejects[report.reason] += 1

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Only one extraction writes a set. Raises ValueError when another one is at it."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another extraction is writing {out}; wait for it, or use another --out") from None
        yield


def choice_of(request: Request) -> EstimatorChoice:
    """The estimator, checked and not built."""
    image_size = request.content.get("image_size", Settings.image_size)
    return choose(request.flow, request.options, image_size=image_size)


def settings_of(request: Request, choice: EstimatorChoice) -> Settings:
    """Everything that shapes the content, the estimator's own statement included."""
    statement = {"name": choice.name, **choice.statement()}
    return Settings(dataset=request.dataset, estimator=statement, **request.content)


def extract(
    request: Request, on_event: Callable[[Event, Tally], None], on_plan: Callable[[Plan, Tally], None]
) -> Manifest:
    """Run to the end and return the finished manifest.

    Raises ValueError for bad input (nothing is written), ExtractionError when a chunk cannot be made. After any
    error or interrupt the set holds exactly the chunks that had landed, and its manifest says so.
    """
    listing = list_videos(request.dataset, request.root, list_file=request.list_file)
    choice = choice_of(request)
    settings = settings_of(request, choice)
    with locked(request.out):
        plan = make_plan(request.out, listing, request.root, settings, request.passes)
        shutil.rmtree(
            request.out / ".tmp", ignore_errors=True
        )  # what a killed run left; nobody else writes, we hold the lock
        save_plan(request.out, plan)
        missing = plan.missing(request.out)
        tally = Tally(sum(len(plan.chunk(c)) for c in missing), len(missing))
        on_plan(plan, tally)
        jobs = [
            ChunkJob(
                request.out, settings, chunk, tuple(passes), tuple(plan.chunk(chunk)), request.batch, request.deadline_s
            )
            for chunk, passes in missing.items()
        ]
        try:
            _run(request, choice, jobs, plan, tally, on_event)
        except BaseException:
            # What stopped the run is what the user must hear of; on a full disk the manifest cannot be written either,
            # and the next run makes it from the records.
            with suppress(OSError):
                _finalize(request.out, plan)
            raise
        return _finalize(request.out, plan)


def _finalize(out: Path, plan: Plan) -> Manifest:
    return finalize(out, plan.settings, plan.chunks, plan.passes, [v.row() for v in plan.videos])


def _run(
    request: Request,
    choice: EstimatorChoice,
    jobs: Sequence[ChunkJob],
    plan: Plan,
    tally: Tally,
    on_event: Callable[[Event, Tally], None],
) -> None:
    log_path = request.out / ".log" / f"extract-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
    log_path.parent.mkdir(exist_ok=True)
    told = time.perf_counter()
    with open(log_path, "a") as log, LocalRunner(request.workers, choice) as runner:

        def handle(event: Event) -> None:
            nonlocal told
            if isinstance(event, VideoReport):
                tally.add(event)
                log.write(json.dumps(event.__dict__) + "\n")
            elif isinstance(event, ChunkDone):
                tally.chunks_done += 1
                log.flush()
                if time.perf_counter() - told > PARTIAL_MANIFEST_EVERY_S and tally.chunks_done < tally.chunks:
                    _finalize(request.out, plan)  # training may begin on what has landed
                    told = time.perf_counter()
            on_event(event, tally)

        runner.run(jobs, handle)

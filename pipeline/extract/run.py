"""The extraction run: listing → plan → chunk jobs for a runner → a finished set.

Where data comes from: a video data set. Where it goes: a shard set. Rerunning the same command continues where
the last run stopped, by asking the set which (chunk, pass) have landed; asking for more passes extends it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType

from common.command import PlainError, nearest
from pipeline.extract.at_work import AtWork, PartEnd
from pipeline.extract.batches import windows_per_call
from pipeline.extract.parts import Part
from pipeline.extract.plan import ChunkPlan, Continuing, make_plan, save_plan, stored_plan
from pipeline.extract.runner import (
    ChunkDone,
    ChunkFailed,
    ChunkJob,
    Event,
    ExtractionError,
    IndexBegun,
    Runner,
    StageLoad,
    VideoReport,
    disk_is_full,
)
from pipeline.extract.sources import note_sources
from pipeline.extract.stages import FLOW_FAILED, NO_FLOW
from pipeline.extract.tally import Tally
from pipeline.flow.estimator import EstimatorChoice, PairsTogether
from pipeline.video.cut_rule import rule_of
from pipeline.video.datasets import survey
from pipeline.video.rejects import REJECT_REASONS
from shards.files import full_disk
from shards.records import committed, drop_passes, recorded
from shards.schema import MOST_PASSES, Manifest, Settings, Statement
from shards.settings import LARGEST_CHUNK
from shards.writer import finalize

PARTIAL_MANIFEST_EVERY_S = 60.0
PARTIAL_MANIFEST_GROWTH = 1.02
"""A manifest of what has landed so far is due when so much more has landed than in the last: all of them together then write a fixed
number of times what the last one does, however large the set. Each reads what is new alone (`shards.finalize`)."""
PUBLISHING_WAIT_S = 0.25
"""How long the events wait for such a manifest; it is made beside them from then on."""

RETRIABLE = frozenset({*REJECT_REASONS, FLOW_FAILED, NO_FLOW})
"""Reasons that a rejected video can have, and be tried again for."""


@dataclass(frozen=True)
class ExtractionRequest:
    """What is asked for, checked. settings: all that shapes the set; its dataset says how `root` is laid out.

    estimator: the one that the settings state. passes: samples per video. batch: windows per call of the estimator, None as it likes.
    deadline_s: for decoding one video. continuing: what else to do with a set that exists. part: which chunks to make.
    """

    root: Path
    out: Path
    settings: Settings
    estimator: EstimatorChoice
    list_file: Path | None = None
    passes: int = 8
    batch: int | None = None
    deadline_s: float = 120.0
    continuing: Continuing = field(default_factory=Continuing)
    part: Part = field(default_factory=Part)

    def __post_init__(self) -> None:
        for name, value in (("passes", self.passes), ("batch", self.batch)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if self.batch is not None and self.batch > LARGEST_CHUNK:  # memory is set aside for so many
            raise ValueError(f"batch is {self.batch}; it must be at most {LARGEST_CHUNK}, the videos of a chunk")
        if self.passes > MOST_PASSES:
            raise ValueError(f"passes is {self.passes}; it must be at most {MOST_PASSES}")
        if not 0 < self.deadline_s < math.inf:
            raise ValueError(f"deadline is {self.deadline_s} s; it must be a positive number of seconds")
        rule_of(self.settings)  # says so here where what finds cuts is missing
        unknown = sorted(self.continuing.retry - RETRIABLE)
        if unknown:
            raise ValueError(f"no video is rejected for {unknown[0]!r}; {nearest(unknown[0], sorted(RETRIABLE))}")
        if self.continuing.drop_passes and not self.part.whole:
            raise ValueError("--drop-passes takes passes from the whole set: run it once, without --part")
        assert self.settings.estimator == stated(self.estimator), "the settings state another estimator"
        if self.settings.flow_size < self.estimator.smallest_side_px:
            raise ValueError(
                f"flow_size is {self.settings.flow_size}; {self.estimator.name} needs squares of at least "
                f"{self.estimator.smallest_side_px} pixels"
            )

    def plan(self) -> ChunkPlan:
        """The plan for what lies at `out` now; nothing is written. Raises ValueError for bad input."""
        listing = survey(self.settings.dataset, self.root, list_file=self.list_file)
        continuing = replace(self.continuing, whole=self.part.whole)
        plan = make_plan(self.out, listing.videos, self.root, self.settings, self.passes, continuing)
        remarks = filter(None, (listing.remark(), plan.remark))
        return replace(plan, ignored=listing.ignored, remark="; ".join(remarks))


def stated(estimator: EstimatorChoice) -> Statement:
    """An estimator as the settings of a set name it."""
    return {"name": estimator.name, **estimator.statement()}


OnEvent = Callable[[Event, Tally], None]
OnPlan = Callable[[ChunkPlan, Tally], None]


def extract(request: ExtractionRequest, runner: Runner, on_event: OnEvent, on_plan: OnPlan) -> Manifest:
    """Run to the end and return the finished manifest. The accounts of the run close, or it ends in an AssertionError.

    Raises ValueError for bad input and ExtractionError where no estimator can be built (nothing is written then),
    ExtractionError when a chunk cannot be made or the disk is full. After any error or interrupt the set holds exactly the
    chunks that had landed, and its manifest says so.
    """
    ended = extract_part(request, runner, on_event, on_plan)
    assert ended.manifest is not None, "only a part leaves the manifest to others"
    return ended.manifest


def extract_part(request: ExtractionRequest, runner: Runner, on_event: OnEvent, on_plan: OnPlan) -> PartEnd:
    """As `extract`, of the chunks that belong to the request's part, while others may make other parts of the same set."""
    try:
        with ExitStack() as running:
            running.enter_context(runner)
            # Planned without a trace, so that whatever is refused is refused before the directory exists.
            basis = stored_plan(request.out)
            plan = request.plan()
            runner.prepare(len(request.part.share(plan.missing(request.out))))
            with AtWork(request.out, request.part) as at_work:
                plan = at_work.admit(plan, basis, request.plan, save_plan)
                return _extract(request, plan, runner, running, at_work, on_event, on_plan)
    except OSError as error:
        if full_disk(error):
            raise ExtractionError(disk_is_full(request.out)) from error
        raise


def _extract(
    request: ExtractionRequest,
    plan: ChunkPlan,
    runner: Runner,
    running: ExitStack,
    at_work: AtWork,
    on_event: OnEvent,
    on_plan: OnPlan,
) -> PartEnd:
    """Under the lock. running: leaving it ends the runner."""
    out, part = request.out, request.part
    if part.whole:
        drop_passes(out, plan.passes)
    everywhere = plan.missing(out)
    missing = part.share(everywhere)
    lost = sum(part.has(chunk) for chunk, _ in recorded(out) - committed(out))
    videos_of = {chunk: len(plan.chunk(chunk)) for chunk in missing}
    windows = sum(videos_of[chunk] * len(passes) for chunk, passes in missing.items())
    tally = Tally(sum(videos_of.values()), len(missing), windows, lost=lost)
    on_plan(plan, tally)
    jobs = [
        ChunkJob(
            root=out,
            settings=plan.settings,
            chunk=chunk,
            passes=tuple(passes),
            videos=tuple(plan.chunk(chunk)),
            batch=windows_per_call(request.estimator, len(plan.settings.offsets), request.batch),
            deadline_s=request.deadline_s,
            together=isinstance(request.estimator, PairsTogether),
        )
        for chunk, passes in missing.items()
    ]

    make, left = partial(finalize_plan, out, plan), partial(plan.missing, out)

    def make_last() -> Manifest:
        on_event(IndexBegun(plan.passes * len(plan.current)), tally)
        return make()

    try:
        # Both end here: no chunk may land, and no worker hold memory, while the set is finalized.
        with running, _Publisher(partial(at_work.alone, make), plan.chunks - len(everywhere)) as publisher:
            _run(request, runner, jobs, plan, tally, at_work, publisher, on_event)
    except BaseException:
        # What stopped the run is what the user must hear of; on a full disk the manifest cannot be written either,
        # and the next run makes it from the records.
        with suppress(OSError, PlainError):
            at_work.leave(left, make, in_haste=True)
        raise
    return at_work.leave(left, make_last, in_haste=False)


def finalize_plan(out: Path, plan: ChunkPlan) -> Manifest:
    """Make tables and manifest of what has landed of a plan."""
    return finalize(out, plan.settings, plan.chunks, plan.passes, [v.row() for v in plan.videos])


def _run(
    request: ExtractionRequest,
    runner: Runner,
    jobs: Sequence[ChunkJob],
    plan: ChunkPlan,
    tally: Tally,
    at_work: AtWork,
    publisher: _Publisher,
    on_event: OnEvent,
) -> None:
    """Let the runner make the jobs, and keep the accounts: log, tally, a manifest of what has landed so far."""
    out, part = request.out, request.part
    which = "" if part.whole else f"-part-{part.index}-of-{part.of}"
    log_path = out / ".log" / f"extract-{time.strftime('%Y%m%d-%H%M%S')}{which}.jsonl"
    log_path.parent.mkdir(exist_ok=True)
    with open(log_path, "a") as log:

        def handle(event: Event) -> None:
            at_work.check()
            if isinstance(event, VideoReport):
                tally.add(event)
                log.write(json.dumps(asdict(event)) + "\n")
            elif isinstance(event, ChunkFailed):
                log.write(json.dumps(asdict(event)) + "\n")
                log.flush()
                where = f" (traceback in {log_path})" if event.trace else ""
                raise ExtractionError(f"{event.message}{where}")
            elif isinstance(event, StageLoad):
                tally.load = event
            elif isinstance(event, ChunkDone):
                tally.chunks_done += 1
                note_sources(out, event.chunk, [v.video for v in plan.chunk(event.chunk)])
                log.flush()
                if part.index == 1:
                    publisher.landed(last=tally.chunks_done == tally.chunks)
            on_event(event, tally)

        began = time.monotonic()
        runner.run(jobs, handle)
        log.write(json.dumps({"run_s": round(time.monotonic() - began, 3)}) + "\n")


class _Publisher:
    """Manifests of what has landed so far, made in a thread: training may begin on them. chunks: how many had landed before."""

    def __init__(self, make: Callable[[], Manifest], chunks: int) -> None:
        self._make = make
        self._chunks = self._published = chunks
        self._since = time.perf_counter()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="manifest")
        self._at_work: Future[Manifest] | None = None

    def __enter__(self) -> _Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None and self._at_work is not None:
            self._at_work.result()

    def landed(self, *, last: bool) -> None:
        """One more chunk has. Raises what went wrong with the manifest before. last: the end of the run makes the next one."""
        self._chunks += 1
        if self._at_work is not None and self._at_work.done():
            self._at_work.result()
            self._at_work = None
        due = time.perf_counter() - self._since > PARTIAL_MANIFEST_EVERY_S
        if last or not due or self._at_work or self._chunks < PARTIAL_MANIFEST_GROWTH * self._published:
            return
        self._since, self._published = time.perf_counter(), self._chunks
        self._at_work = self._pool.submit(self._make)
        with suppress(TimeoutError):
            self._at_work.result(PUBLISHING_WAIT_S)

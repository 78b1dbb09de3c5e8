"""Chunks → the actors of a Ray cluster, one engine each (`ray_actor`), with nothing lost when a process or a node dies.

    this process    hands chunks to actors that have none, half of what an even share of the rest would be, so that all end together;
                    tells what happens
    actor           one per GPU, or a stated number on CPUs: makes its chunks and writes their shards

Set and videos, or the scratch that stands for them, must be seen under the same paths on every node, with the same version of this package.
Chunks of an actor that dies go to others, and another actor is asked for; one that cannot be placed (its node is gone) waits for room, also
on nodes that join later, while the others go on. The bytes of a set depend on none of it.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from pipeline.extract.ray_actor import Engine, Ready, Step
from pipeline.extract.runner import ChunkDone, ChunkFailed, ChunkJob, Event, ExtractionError, StageLoad, loads_together
from pipeline.flow.estimator import EstimatorChoice, PairsTogether
from pipeline.video.remote_videos import RemoteVideos
from shards.counting import counted

log = logging.getLogger(__name__)

DEATHS = 5
"""Actors that a chunk may cost before it counts as the cause."""
STILLBORN = 3
"""Actors that may die one after the other before one of them has begun."""
START_S = 600.0
"""How long no actor at all may be ready."""
ANSWER_S = 900.0
"""How long an actor that is ready may be silent, which answers within seconds (SEEN_S at most). Past that its process has been stopped."""
LOOK_S = 2.0
SEEN_S = 30.0
STOP_S = 30.0
OBJECT_STORE_BYTES = 100 << 20
"""Of a cluster of our own: only events pass through it."""


def on_cluster(choice: EstimatorChoice) -> EstimatorChoice:
    """The choice as it runs on an actor's GPU. This machine may have none, so `on_device`, which looks for it here, is not asked.

    Raises ValueError for an estimator that runs on CPUs only.
    """
    if not isinstance(choice, PairsTogether):
        raise ValueError(f"{choice.name} does not run on GPUs; leave --device out")
    return cast(EstimatorChoice, replace(cast(Any, choice), device="cuda:0"))


@dataclass(eq=False)
class _Seat:
    """An actor. asked: the call that has not been answered, made at `since` by time.monotonic. busy: whether it has been given chunks and
    not said that it is through with them. jobs: those that have not ended, in order."""

    actor: Any
    asked: Any
    since: float = 0.0
    host: str = "?"
    ready: bool = False
    sees: bool = False
    busy: bool = False
    jobs: deque[ChunkJob] = field(default_factory=deque)
    load: StageLoad | None = None


class RayRunner:
    """A `Runner` of `actors` actors (None: as many as there is room for) with `workers` cores each. on_gpus: a GPU each, too.

    workers: None for an even share of the cluster's cores beside GPUs, one on CPUs. address: of the cluster; empty for one of its own here.
    remote: as `LocalRunner` takes it, for all actors. Raises ValueError where Ray is not installed or a number is below 1.
    """

    def __init__(
        self,
        choice: EstimatorChoice,
        *,
        actors: int | None,
        workers: int | None,
        on_gpus: bool,
        address: str = "",
        remote: tuple[RemoteVideos, int] | None = None,
    ) -> None:
        for name, value in (("actors", actors), ("workers", workers)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if find_spec("ray") is None:
            raise ValueError("the Ray runner needs Ray: pip install 'flowfeat-shards[ray]'")
        self.choice, self.actors, self.workers = choice, actors, workers
        self.on_gpus, self.address, self._remote = on_gpus, address, remote
        self._ray: Any = None
        self._ours = False
        self._seats: list[_Seat] = []
        self._stillborn, self._running = 0, False
        self._alive_since = time.monotonic()

    def __enter__(self) -> RayRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ray is None:
            return
        if self._running:  # so that nothing lands any more
            stops = [seat.actor.stop.remote() for seat in self._seats if seat.ready]
            if stops:
                self._ray.wait(stops, num_returns=len(stops), timeout=STOP_S)
        for seat in self._seats:
            self._ray.kill(seat.actor)
        self._seats.clear()
        if self._ours:
            self._ray.shutdown()
        self._ray = None

    def prepare(self, jobs: int) -> None:
        """Reach the cluster, ask for the actors, and wait until the first has built its estimator."""
        if not jobs:
            return
        self._alive_since = time.monotonic()
        self._connect()
        cpus, gpus = (int(self._ray.cluster_resources().get(name, 0)) for name in ("CPU", "GPU"))
        if self.actors is None:
            self.actors = max(1, gpus if self.on_gpus else cpus // (self.workers or 1))
        if self.workers is None:
            self.workers = max(1, cpus // self.actors) if self.on_gpus else 1
        self._seats = [self._new_seat() for _ in range(min(self.actors, jobs))]
        while not any(seat.ready for seat in self._seats):
            self._hear(lambda event: None, Counter(), deque())

    def _connect(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
        import ray  # an extra, and slow to load

        self._ray = ray
        if ray.is_initialized():
            return
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if self.address:
                ray.init(address=self.address, **quiet)
            else:
                ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        except (ConnectionError, RuntimeError, TimeoutError) as error:
            self._ray = None
            where = self.address or "this machine"
            raise ExtractionError(f"no Ray cluster at {where}: {_first_line(error)}") from error
        self._ours = True

    def _new_seat(self) -> _Seat:
        made = self._ray.remote(num_cpus=self.workers, num_gpus=int(self.on_gpus), max_restarts=0)(Engine)
        share = self._remote and (self._remote[0], self._remote[1] // (self.actors or 1))
        actor = made.remote(os.getcwd(), self.workers, self.choice, ("cuda:0",) if self.on_gpus else (), share)
        return _Seat(actor, actor.ready.remote())

    def run(self, jobs: Sequence[ChunkJob], on_event: Callable[[Event], None]) -> None:
        """Make all chunks."""
        if not jobs:
            return
        if not self._seats:
            self.prepare(len(jobs))
        self._running = True
        waiting, deaths = deque(jobs), Counter[int]()
        mark = jobs[0].root / f".ray-{secrets.token_hex(8)}"
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        try:
            while waiting or any(seat.jobs for seat in self._seats):
                for seat in self._seats:
                    if seat.ready and seat.asked is None:
                        self._ask(seat, waiting, jobs[0], mark)
                self._hear(on_event, deaths, waiting)
        finally:
            mark.unlink(missing_ok=True)
        self._running = False

    def _ask(self, seat: _Seat, waiting: deque[ChunkJob], first: ChunkJob, mark: Path) -> None:
        """The next question to an actor that is there. mark: a file in the set's directory that no other directory has."""
        seat.since = time.monotonic()
        if not seat.sees:
            video = next((v.video.path for v in first.videos if v.video.path.exists()), None)
            seat.asked = seat.actor.unseen.remote([mark] if video is None else [mark, video], SEEN_S)
            return
        if not seat.busy:
            share = math.ceil(len(waiting) / (2 * len(self._seats)))
            seat.jobs.extend(waiting.popleft() for _ in range(share))
            if not seat.jobs:
                return
            seat.busy = True
            seat.asked = seat.actor.step.remote(list(seat.jobs))
            return
        seat.asked = seat.actor.step.remote([])

    def _hear(self, on_event: Callable[[Event], None], deaths: Counter[int], waiting: deque[ChunkJob]) -> None:
        """Wait for an answer, and take all that are there."""
        if any(seat.ready for seat in self._seats):
            self._alive_since = time.monotonic()
        elif time.monotonic() - self._alive_since > START_S:
            needs = counted(self.workers or 1, "CPU") + (" and a GPU" if self.on_gpus else "")
            waited = f"no actor of the Ray cluster has been ready for {START_S:g} s (each needs {needs})"
            raise ExtractionError(f"{waited}: use fewer --workers, or add nodes")
        asked = {seat.asked: seat for seat in self._seats if seat.asked is not None}
        done, _ = self._ray.wait(list(asked), num_returns=1, timeout=LOOK_S)
        if done:
            done, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=0)
        for call in done:
            seat = asked[call]
            seat.asked = None
            try:
                answer: Ready | Step | str = self._ray.get(call)
            except self._ray.exceptions.RayTaskError:
                raise  # a defect of ours
            except self._ray.exceptions.RayError as error:
                self._lost(seat, _first_line(error), deaths, waiting, on_event)
                continue
            if isinstance(answer, Ready):
                self._begun(seat, answer)
            elif isinstance(answer, Step):
                for event in answer.events:
                    self._happened(seat, event, on_event)
                seat.busy = answer.busy
                if answer.ends_run:
                    raise ExtractionError(answer.ends_run)
                if answer.broken:
                    self._lost(seat, answer.broken, deaths, waiting, on_event, answer.trace)
            elif answer:
                self._go_on_without(
                    seat, f"{seat.host} does not see {answer}, which is there on this machine: mount it"
                )
            else:
                seat.sees = True

        for seat in [seat for seat in self._seats if seat.ready and seat.asked is not None]:
            silent_s = time.monotonic() - seat.since
            if silent_s > ANSWER_S:
                self._lost(seat, f"no answer for {silent_s:.0f} s", deaths, waiting, on_event)

    def _begun(self, seat: _Seat, answer: Ready) -> None:
        seat.host, seat.ready, self._stillborn = answer.host, not answer.refusal, 0
        if answer.refusal:
            self._go_on_without(seat, f"{seat.host}: {answer.refusal}")

    def _go_on_without(self, seat: _Seat, why: str) -> None:
        self._seats.remove(seat)
        self._ray.kill(seat.actor)
        if not self._seats:
            raise ExtractionError(why)
        log.warning("going on with %s: %s", counted(len(self._seats), "actor"), why)

    def _happened(self, seat: _Seat, event: Event, on_event: Callable[[Event], None]) -> None:
        if isinstance(event, StageLoad):
            seat.load = event
            event = loads_together([seat.load for seat in self._seats if seat.load is not None])
        if isinstance(event, ChunkDone | ChunkFailed):
            seat.jobs = deque(job for job in seat.jobs if job.chunk != event.chunk)
        on_event(event)

    def _lost(
        self,
        seat: _Seat,
        why: str,
        deaths: Counter[int],
        waiting: deque[ChunkJob],
        on_event: Callable[[Event], None],
        trace: str = "",
    ) -> None:
        """An actor is gone: its chunks go back, and another is asked for."""
        self._ray.kill(seat.actor)  # where it was only out of reach
        if not seat.ready:
            self._stillborn += 1
            if self._stillborn >= STILLBORN:
                dead = f"{self._stillborn} Ray actors died while building the flow estimator: {why}"
                raise ExtractionError(f"{dead}; use fewer --workers")
        if self._remote is not None:
            self._remote[0].remove_left()
        log.warning("a Ray actor on %s is gone (%s); chunks that go to others: %d", seat.host, why, len(seat.jobs))
        if seat.jobs:
            chunk = seat.jobs[0].chunk
            deaths[chunk] += 1
            if deaths[chunk] >= DEATHS:
                seat.jobs.popleft()
                ended = f"chunk {chunk}: it has ended {DEATHS} Ray actors, the last by {why}"
                on_event(ChunkFailed(chunk, ended, trace))
        waiting.extendleft(reversed(seat.jobs))
        self._seats[self._seats.index(seat)] = self._new_seat()


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

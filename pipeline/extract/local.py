"""Chunks → this machine's cores and accelerators, all stages at once, with nothing lost when a process dies.

    DecodingPool    `workers` killable processes, one video at a time each
    flow workers    one per device; on a CPU `workers` of them, one thread each, which also encode
    encoders        `workers` processes beside devices
    this process    hands out work (`flowing.Production`), writes shards in a thread (`writing.Writer`), tells what happens

Processes talk to this one only and die with it. Pixels lie in memory that they share (`video.arena`). A batch whose worker dies
goes to a fresh one; what a set holds does not depend on any of it (`batches`).
CPU networks run on one thread per worker whatever the number of workers, because the number of threads shapes their rounding.
"""

from __future__ import annotations

import math
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType

from common.cores import usable_processors
from pipeline.extract.crew import Crew, Crews
from pipeline.extract.decoding import DecodingPool
from pipeline.extract.fetching import FetchingPool
from pipeline.extract.flowing import Production
from pipeline.extract.room import DEPTH
from pipeline.extract.runner import ChunkDone, ChunkFailed, ChunkJob, Event, StageLoad, VideoReport
from pipeline.extract.writing import Writer
from pipeline.flow.estimator import EstimatorChoice, PairsTogether
from pipeline.video.arena import Arena
from pipeline.video.remote_videos import RemoteVideos

LOAD_EVERY_S = 2.0


class LocalRunner:
    """A `Runner` of `workers` decoding processes and as many others. devices: accelerators to run the choice on, each in its own process;
    none: on the CPU. remote: where the videos lie, with the bytes of them that may lie in scratch; None: in local folders.

    Raises ValueError when workers is below 1, and for devices that the choice cannot use.
    """

    def __init__(
        self,
        workers: int,
        choice: EstimatorChoice,
        devices: Sequence[str] = (),
        remote: tuple[RemoteVideos, int] | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers}; it must be at least 1")
        self.workers, self.choice, self.devices, self._remote = workers, choice, tuple(devices), remote
        self._choices: list[EstimatorChoice | None] = [choice] * workers
        if devices:
            if not isinstance(choice, PairsTogether):
                raise ValueError(f"{choice.name} does not run on {', '.join(devices)}; leave the device out")
            self._choices = [choice.on_device(device) for device in devices]
        self._on_devices = bool(devices)
        self._arenas: tuple[Arena, Arena] | None = None
        self._crews: Crews | None = None

    def __enter__(self) -> LocalRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._crews is not None:
            for crew in (self._crews.flow, self._crews.encoders):
                if crew is not None:
                    crew.close()
            self._crews.decoders.close()
            self._crews = None
        if self._arenas is not None:
            for arena in self._arenas:
                arena.close()
            self._arenas = None

    @property
    def processes(self) -> int:
        """Workers that have been started and not ended."""
        if self._crews is None:
            return 0
        encoders = self._crews.encoders.members if self._crews.encoders is not None else []
        return len(self._crews.flow.members) + len(encoders)

    def prepare(self, jobs: int) -> None:
        """Start a decoder, a worker per device (one on a CPU), and wait until the first has built its estimator."""
        if not jobs:
            return
        self._arenas = frames, flow = Arena(), Arena()
        threads = max(1, usable_processors() // len(self._choices)) if self._on_devices else 1
        working = Crew(self._choices, frames, flow, threads=threads, depth=DEPTH)
        encoders = Crew([None] * self.workers, frames, flow, threads=1, depth=DEPTH) if self._on_devices else None
        if self._remote is None:
            decoders = DecodingPool(frames, self.workers)
        else:
            decoders = FetchingPool(frames, self.workers, *self._remote)
        self._crews = Crews(decoders, working, encoders)
        self._crews.decoders.warm_up()
        working.start(len(self._choices) if self._on_devices else 1)
        while not any(member.ready for member in working.members):
            self._listen(LOAD_EVERY_S)

    def run(self, jobs: Sequence[ChunkJob], on_event: Callable[[Event], None]) -> None:
        """Make all chunks with the processes that `prepare` has started, and more where there is work for them."""
        if not jobs:
            return
        if self._crews is None:
            self.prepare(len(jobs))
        assert self._crews is not None and self._arenas is not None
        videos = sum(len(job.videos) for job in jobs)
        self._crews.flow.start(videos)
        if self._crews.encoders is not None:
            self._crews.encoders.start(videos)
        bell, rung = socket.socketpair()
        told: deque[VideoReport | ChunkDone | ChunkFailed] = deque()

        def tell(event: VideoReport | ChunkDone | ChunkFailed) -> None:
            told.append(event)
            with suppress(BlockingIOError):  # it has been rung often enough
                bell.send(b"!")

        bell.setblocking(False)

        writer = Writer(tell)
        try:
            flow_workers = len(self._crews.flow.members)
            production = Production(
                jobs, self._crews, writer, self._arenas, flow_workers=flow_workers, decoders=self.workers
            )
            self._loop(production, writer, rung, told, on_event)
        finally:
            writer.stop()
            bell.close()
            rung.close()

    def _loop(
        self,
        production: Production,
        writer: Writer,
        rung: socket.socket,
        told: deque[VideoReport | ChunkDone | ChunkFailed],
        on_event: Callable[[Event], None],
    ) -> None:
        blocks_left, failed = Counter(production.blocks_of), set[int]()
        measured = time.monotonic()
        while any(blocks_left.values()):
            production.advance()
            self._listen(LOAD_EVERY_S, rung)
            while told:
                event = told.popleft()
                if isinstance(event, VideoReport):
                    on_event(event)
                    continue
                blocks_left[event.chunk] -= 1
                if isinstance(event, ChunkFailed) and event.chunk not in failed:
                    failed.add(event.chunk)
                    on_event(event)
                elif isinstance(event, ChunkDone) and not blocks_left[event.chunk] and event.chunk not in failed:
                    on_event(event)
                writer.heard()
            now = time.monotonic()
            if now - measured >= LOAD_EVERY_S:
                on_event(self._load(production, writer, now - measured))
                measured = now

    def _load(self, production: Production, writer: Writer, seconds: float) -> StageLoad:
        assert self._crews is not None
        flow = self._crews.flow
        return StageLoad(
            flow_waits=min(1.0, flow.idle_s() / (seconds * len(flow.members))),
            decoding_waits=min(1.0, production.starved_s() / seconds),
            for_flow=production.windows_waiting,
            for_encoding=production.windows_encoding,
            for_writing=writer.waiting_videos,
        )

    def _listen(self, seconds: float, rung: socket.socket | None = None) -> None:
        """Hear what has arrived, or find out who is overdue."""
        assert self._crews is not None
        decoders, poll = self._crews.decoders, select.poll()
        ears: dict[int, Callable[[], object]] = {ear.fileno(): partial(decoders.heard, ear) for ear in decoders.ears}
        room = set[int]()
        for crew in filter(None, (self._crews.flow, self._crews.encoders)):
            for member in crew.members:
                ears[member.pipe.fileno()] = partial(crew.heard, member)
                if member.pipe.waits_for_room:
                    room.add(member.pipe.fileno())
        if rung is not None:
            ears[rung.fileno()] = partial(rung.recv, 1 << 12)
        for descriptor in ears:
            poll.register(descriptor, select.POLLIN | (select.POLLOUT if descriptor in room else 0))
        until = min(seconds, max(0.0, decoders.next_deadline - time.monotonic()))
        for descriptor, _ in poll.poll(math.ceil(1000 * until)):
            ears[descriptor]()
        decoders.expire()
        self._crews.flow.expire()
        if self._crews.encoders is not None:
            self._crews.encoders.expire()

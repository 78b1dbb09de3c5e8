"""The worker processes of one machine, from their parent's side: started, given tasks, listened to, replaced when they die.

A `Crew` is a number of equal workers: with an estimator (one per accelerator, or one per core on a CPU) or without (they encode). A task
of a worker that dies goes to a fresh one; what happens to a task that has cost several workers their life is for the owner to say. A worker
that hangs (a driver that never returns, a process that was stopped in the middle of an answer) is ended, and has died.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler, send_handle

from pipeline.extract.decoding import DecodingPool
from pipeline.extract.runner import ExtractionError
from pipeline.extract.termination import interrupts_wait
from pipeline.extract.worker import Broken, EncodeTask, FlowTask, TaskDone, WorkerReady, work
from pipeline.extract.worker_pipe import WorkerPipe
from pipeline.flow.estimator import EstimatorChoice
from pipeline.video.arena import Arena
from shards.counting import counted

log = logging.getLogger(__name__)

DEATHS = 2
"""Workers that a batch may cost before it is taken apart, and a window before its video is rejected."""
DEATHS_WHEN_KILLED = 5

BUILDING_S = 1800.0
"""How long building an estimator may take: weights may come over a slow network, kernels may have to be compiled."""
ANSWER_LEAST_S = 900.0
ANSWER_TIMES = 20.0
FIRST_WINDOW_S = 600.0
"""A task may take ANSWER_LEAST_S and ANSWER_TIMES the longest time that a window has taken so far; before the first answer FIRST_WINDOW_S
for each window. Far beyond anything slow: what is waited for longer will not come."""
ENDING_S = 60.0
"""How long a process that has been killed is waited for. The kernel may be unable to end it."""


@dataclass(frozen=True)
class Death:
    """How a worker ended. broken: its last words, where it had any. hung_s: how long it had been silent when it was ended for that."""

    exit_code: int | None
    broken: Broken | None
    hung_s: float = 0.0

    @property
    def said(self) -> str:
        if self.hung_s:
            return f"no answer for {self.hung_s:.0f} s"
        return f"exit code {self.exit_code}; -9 often means out of memory"

    @property
    def allowed(self) -> int:
        """How many such deaths a batch may cost. Being killed from outside says little about the batch."""
        return DEATHS_WHEN_KILLED if self.exit_code == -signal.SIGKILL and not self.hung_s else DEATHS


@dataclass
class Order:
    """A task on its way. done: called with the answers. lost: called with the death of the worker that had it. deaths: so far."""

    task: FlowTask | EncodeTask
    done: Callable[[TaskDone], None]
    lost: Callable[[Order, Death], None]
    deaths: int = 0


@dataclass(eq=False)
class Member:
    """A worker. orders: what it has been given and not answered, oldest first. replaces: whether it was started for one that died.
    idle_since: when it last had nothing to do, since: when it was started or began its oldest order, by time.monotonic.
    """

    process: BaseProcess
    pipe: WorkerPipe
    choice: EstimatorChoice | None
    orders: deque[Order] = field(default_factory=deque)
    ready: bool = False
    replaces: bool = False
    idle_since: float | None = None
    broken: Broken | None = None
    since: float = field(default_factory=time.monotonic)


class Crew:
    """Workers, one for each of `choices` (None: without an estimator). depth: tasks that each may have at once.

    Workers are started by `start` and when one has died; they are bound to the thread that does it.
    """

    def __init__(
        self, choices: list[EstimatorChoice | None], frames: Arena, flow: Arena, *, threads: int, depth: int
    ) -> None:
        self._choices, self._frames, self._flow = choices, frames, flow
        self._threads, self._depth = threads, depth
        self._context = get_context("spawn")
        self._queue: deque[Order] = deque()
        self.members: list[Member] = []
        self._idle_s = 0.0
        self.successes = 0
        self._longest_s = 0.0

    def start(self, most: int) -> None:
        """Start up to so many workers."""
        while len(self.members) < min(most, len(self._choices)):
            with interrupts_wait():
                self.members.append(self._start(self._choices[len(self.members)]))

    def _start(self, choice: EstimatorChoice | None) -> Member:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(theirs, os.getpid(), self._threads))
        process.start()
        theirs.close()
        with suppress(OSError):  # a worker that is dead already is found when it is listened to
            assert process.pid is not None
            send_handle(ours, self._frames.descriptor, process.pid)
            send_handle(ours, self._flow.descriptor, process.pid)
        pipe = WorkerPipe(ours)
        pipe.send(ForkingPickler.dumps(choice))
        return Member(process, pipe, choice)

    @property
    def queued(self) -> int:
        """Windows whose task has not been given to a worker yet."""
        return sum(len(order.task.windows) for order in self._queue)

    @property
    def room(self) -> int:
        """Tasks that workers would take at once."""
        return max(0, self._depth * max(1, len(self.members)) - len(self._queue) - self.at_work)

    @property
    def at_work(self) -> int:
        """Tasks that workers have."""
        return sum(len(member.orders) for member in self.members)

    def submit(self, order: Order, *, first: bool = False) -> None:
        """Have it done, in the order of the calls."""
        (self._queue.appendleft if first else self._queue.append)(order)
        self.dispatch()

    def dispatch(self) -> None:
        """Give what waits to whoever has the least to do."""
        while self._queue:
            able = [m for m in self.members if m.ready and len(m.orders) < self._depth and m.broken is None]
            if not able:
                return
            member = min(able, key=lambda m: len(m.orders))
            order = self._queue.popleft()
            self._note_idle(member, False)
            if not member.orders:
                member.since = time.monotonic()
            member.orders.append(order)
            member.pipe.send(ForkingPickler.dumps(order.task))

    def heard(self, member: Member) -> None:
        """Something has arrived from a worker, or it takes more of what is sent to it, or it is gone. Never waits for the worker.

        Raises ExtractionError when none can be built.
        """
        member.pipe.go_on_sending()
        try:
            message = member.pipe.hear()
        except (EOFError, OSError):
            self._replace(member)
            return
        if message is not None:
            self._take(member, pickle.loads(message))
        self.dispatch()

    def _take(self, member: Member, message: WorkerReady | TaskDone | Broken) -> None:
        if isinstance(message, WorkerReady):
            if message.refusal:
                self._go_on_without(member, message.refusal)
            member.ready = not message.refusal
            self._note_idle(member, member.ready)
        elif isinstance(message, Broken):
            member.broken = message  # it ends now, which is heard next
        else:
            self.successes += 1
            order = member.orders.popleft()
            now = time.monotonic()
            self._longest_s = max(self._longest_s, (now - member.since) / len(order.task.windows))
            member.since = now
            self._note_idle(member, not member.orders)
            order.done(message)

    def _note_idle(self, member: Member, idle: bool) -> None:
        now = time.monotonic()
        if member.idle_since is not None:
            self._idle_s += now - member.idle_since
        member.idle_since = now if idle else None

    def idle_s(self) -> float:
        """Seconds since the last call that workers had nothing to do, all of them together."""
        for member in self.members:
            self._note_idle(member, member.idle_since is not None)
        idle, self._idle_s = self._idle_s, 0.0
        return idle

    def expire(self) -> None:
        """End workers that have hung. Raises ExtractionError as `heard` does."""
        now = time.monotonic()
        for member in [member for member in self.members if now - member.since > self._allowed_s(member)]:
            member.process.kill()
            self._replace(member, hung_s=now - member.since)
        self.dispatch()

    def _allowed_s(self, member: Member) -> float:
        if not member.ready:
            return BUILDING_S
        if not member.orders:
            return math.inf
        each_s = ANSWER_TIMES * self._longest_s if self.successes else FIRST_WINDOW_S
        return ANSWER_LEAST_S + each_s * len(member.orders[0].task.windows)

    def _replace(self, member: Member, *, hung_s: float = 0.0) -> None:
        """A fresh worker for one that died; its tasks go back to the front of the queue, the one that it was at to its owner."""
        member.process.join(ENDING_S)
        member.process.kill()  # nobody listens to it any more, and it may hold a device
        member.pipe.close()
        code = member.process.exitcode
        if not member.ready:
            ended = f"was silent for {hung_s:.0f} s" if hung_s else "died"
            self._go_on_without(
                member,
                f"a worker {ended} while building the flow estimator (exit code {code}; -9 often means out of memory): use fewer "
                "--workers",
            )
            return
        with interrupts_wait():
            fresh = self._start(member.choice)
            fresh.replaces = True
            self.members[self.members.index(member)] = fresh
        orders = list(member.orders)
        self._queue.extendleft(reversed(orders[1:]))
        if orders:
            orders[0].deaths += 1
            orders[0].lost(orders[0], Death(code, member.broken, hung_s))

    def _go_on_without(self, member: Member, why: str) -> None:
        """A worker cannot be built. Where it would have replaced one that died (a device that has fallen over), the others go on."""
        if member not in self.members:
            return
        if not member.replaces or len(self.members) == 1:
            raise ExtractionError(why)
        log.warning(
            "going on with %s for flow instead of %d: %s",
            counted(len(self.members) - 1, "worker"),
            len(self.members),
            why,
        )
        self.members.remove(member)
        member.process.kill()

    def drop(self, unwanted: Callable[[Order], bool]) -> None:
        """Forget orders that no worker has yet."""
        self._queue = deque(order for order in self._queue if not unwanted(order))

    def close(self) -> None:
        """End all workers, tasks at hand included."""
        for member in self.members:
            member.process.kill()
        for member in self.members:
            member.process.join(ENDING_S)
            member.pipe.close()
        self.members.clear()
        self._queue.clear()


@dataclass(frozen=True)
class Crews:
    """All who work on a run. encoders is None where flow workers encode."""

    decoders: DecodingPool
    flow: Crew
    encoders: Crew | None

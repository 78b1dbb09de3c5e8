"""Several commands at a time, each in a process of its own: on CUDA one per visible GPU, on a CPU as many as asked for.

A `Task` comes in; its output goes to two files, and how it ended comes back as `Ended`. Children are out of reach of the
keyboard's interrupt, so that whoever started them asks each exactly once to end (SIGTERM: a training saves first).
On Linux they end when their parent is killed (the kernel may say so more than once where the parent has threads, so they may not
get round to saving). They inherit the descriptor of a lock: nothing else starts in a directory in which one is still at work.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from common.cores import usable_cores
from common.parent_death import signal_with_parent

KILL_AFTER_S = 10.0
"""How long children that were told to end at once may take before they are killed."""


@dataclass(frozen=True)
class Task:
    """A command and where its output goes: `said` is standard error, `answer` standard output."""

    name: str
    command: tuple[str, ...]
    said: Path
    answer: Path


@dataclass(frozen=True)
class Ended:
    """A task that has ended; `status` as in subprocess: negative is the signal that killed it."""

    task: Task
    status: int

    @property
    def reason(self) -> str:
        """The last line of what it said, or the signal's name; empty where it ended well."""
        if self.status == 0:
            return ""
        if self.status < 0:
            return f"killed by {signal.Signals(-self.status).name}"
        last = last_line(self.task.said)
        return last.removeprefix("Error: ") or f"exit status {self.status} without a word"


@dataclass(frozen=True)
class Slot:
    """A place in which one child runs at a time, with what its environment has besides ours."""

    environment: Mapping[str, str] = field(default_factory=dict)


def slots(jobs: int, *, use_gpus: bool) -> list[Slot]:
    """Places for children. On CUDA one per visible GPU, or `jobs` spread over them; else `jobs`, by default one."""
    gpus = visible_gpus() if use_gpus else []
    if not gpus:
        return [Slot() for _ in range(jobs or 1)]
    return [Slot({"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]}) for number in range(jobs or len(gpus))]


def threads_each(places: list[Slot]) -> int:
    """The CPU threads of each child, so that together they have what the machine has; 0, which is no limit, on GPUs."""
    if any(place.environment for place in places):
        return 0
    cores = usable_cores()
    return max(1, cores // len(places))


def visible_gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES of the GPUs this process may use."""
    import torch  # heavy; whoever asks for GPUs has it

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def last_line(path: Path) -> str:
    """The last line with something on it of a text file; empty where there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


class Children:
    """Runs tasks, at most one per slot; a context manager that leaves no child behind."""

    def __init__(self, places: list[Slot], *, held: int | None = None) -> None:
        """held: the descriptor of a lock that children hold on to."""
        self._free = list(places)
        self._held = () if held is None else (held,)
        self._running: list[tuple[Slot, Task, subprocess.Popen[bytes]]] = []

    @property
    def free(self) -> int:
        """Slots in which nothing runs."""
        return len(self._free)

    @property
    def running(self) -> list[Task]:
        return [task for _, task, _ in self._running]

    def start(self, task: Task) -> None:
        """Run a task in a free slot."""
        slot = self._free.pop(0)
        for path in (task.said, task.answer):
            path.parent.mkdir(parents=True, exist_ok=True)
        with open(task.said, "wb") as said, open(task.answer, "wb") as answer:
            process = subprocess.Popen(
                task.command,
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=said,
                env={**os.environ, **slot.environment},
                start_new_session=True,
                pass_fds=self._held,
                preexec_fn=signal_with_parent(signal.SIGTERM, os.getpid()),
            )
        self._running.append((slot, task, process))

    def ended(self) -> list[Ended]:
        """What has ended since the last call."""
        over = [entry for entry in self._running if entry[2].poll() is not None]
        self._running = [entry for entry in self._running if entry not in over]
        self._free += [slot for slot, _, _ in over]
        return [Ended(task, process.returncode) for _, task, process in over]

    def ask_to_end(self) -> None:
        """Tell every child once; `ended` reports them when they have."""
        for _, _, process in self._running:
            _send(process, signal.SIGTERM)

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Only after an error or a second interrupt is anything left to end here."""
        self.ask_to_end()
        for _, _, process in self._running:
            try:
                process.wait(KILL_AFTER_S)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._running = []


def _send(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)

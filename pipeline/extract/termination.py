"""SIGTERM, as a scheduler sends it some seconds before it kills, and SIGHUP, of a terminal that is closed, taken for an interrupt.

Without this the process would be gone at once: nothing lost, but nobody told, no manifest of what has landed, what was fetched left in
scratch, and other machines waiting until the lock of the set has gone stale.

And an interrupt that comes while a worker is started, which waits until that is done.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGHUP)
INTERRUPTING = (signal.SIGINT, *ENDING)


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """While active, a first SIGTERM or SIGHUP raises KeyboardInterrupt in the main thread; a second one acts as it did before.

    One that is ignored, as nohup has SIGHUP, stays so.
    """
    if threading.current_thread() is not threading.main_thread():  # whoever runs it there handles signals
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, before[signal.Signals(number)])
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in ENDING if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Around starting a process of multiprocessing and noting that it runs: an interrupt comes after that, so that nobody forgets it.

    The process begins with SIGINT blocked, for a keyboard sends it to all: until `ignore_interrupts`, it would end with a traceback.
    """
    resource_tracker.ensure_running()  # else started together with the process, which unblocks SIGINT
    came: list[int] = []
    handlers = {}
    if (
        threading.current_thread() is threading.main_thread()
    ):  # where other threads take the signal, it is still handled here
        handlers = {number: signal.getsignal(number) for number in INTERRUPTING}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, frame: came.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def ignore_interrupts() -> None:
    """First of all in a process that was started so: its parent decides what an interrupt means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

"""SIGTERM, as a scheduler sends it some seconds before it kills, and SIGHUP, of a terminal that is closed, taken for an interrupt.

Without this the process would be gone at once: nothing lost, but nobody told, no manifest of what has landed, what was fetched left in
scratch, and other machines waiting until the lock of the set has gone stale.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGHUP)


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

"""SIGTERM, as a scheduler sends it some seconds before it kills, taken for an interrupt.

Without this the process would be gone at once: nothing lost, but nobody told, no manifest of what has landed, what was fetched left in
scratch, and other machines waiting until the lock of the set has gone stale.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """While active, a first SIGTERM raises KeyboardInterrupt in the main thread; a second one acts as it did before."""
    if threading.current_thread() is not threading.main_thread():  # whoever runs it there handles signals
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, before)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""Processes that must not outlive the one that started them: decoders that hang in C code, workers that hold a GPU, trainings.

`die_with` is called by the process itself and ends it at once. `signal_with_parent` is for the starter of a program that knows
nothing of this and may want to save first.

On Linux the kernel does it; there "the parent" is the thread that started the process: when that thread ends, the signal comes.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_WATCH_EVERY_S = 1.0


def die_with(parent_pid: int) -> None:
    """End this process when its parent ends, even by SIGKILL and even in the middle of C code that holds the GIL (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_watch, args=(parent_pid,), daemon=True).start()


def _watch(parent_pid: int) -> None:
    """Portable fallback, and for a parent that died before the signal was asked for."""
    while os.getppid() == parent_pid:
        time.sleep(_WATCH_EVERY_S)
    os._exit(1)


def signal_with_parent(number: signal.Signals, parent_pid: int) -> Callable[[], None] | None:
    """For subprocess's preexec_fn: the program gets this signal when its starter, `parent_pid`, ends.

    None elsewhere than on Linux.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded here: between fork and exec only calls are safe

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent_pid:  # it ended before the signal was asked for
            signal.signal(number, signal.SIG_DFL)  # until the program is there, handlers are the starter's own
            os.kill(os.getpid(), number)

    return arrange

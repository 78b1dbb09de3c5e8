"""A process that must not outlive the one that started it: decoders that hang in C code, workers that hold a GPU."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_WATCH_EVERY_S = 1.0


def die_with(parent_pid: int) -> None:
    """End this process when its parent ends, even by SIGKILL and even in the middle of C code that holds the GIL (on Linux).

    On Linux "the parent" is the thread that started this process: when that thread ends, so does this.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_watch, args=(parent_pid,), daemon=True).start()


def _watch(parent_pid: int) -> None:
    """Portable fallback, and for a parent that died before the signal was asked for."""
    while os.getppid() == parent_pid:
        time.sleep(_WATCH_EVERY_S)
    os._exit(1)

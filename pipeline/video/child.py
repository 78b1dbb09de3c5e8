"""The decoding process: requests come in over a socket, windows go out. Started and killed by `decode.Decoder`.

A Reject becomes a header. Any other exception is a mistake of ours: it ends the process with its traceback on stderr, which the
parent reports as a crash of the decoder.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection

import decord
import numpy as np

from pipeline.video.messages import Request
from pipeline.video.rejects import Reject
from pipeline.video.windows import decode

PR_SET_PDEATHSIG = 1


def serve(connection: Connection) -> None:
    """Answer requests until the other side closes."""
    connection.send_bytes(b"ready")
    while True:
        try:
            request = Request(**json.loads(connection.recv_bytes()))
        except EOFError:
            return
        began = time.perf_counter()
        try:
            header, messages = decode(request)
        except Reject as reject:
            header, messages = {"reject": reject.reason, "detail": reject.detail}, []
        header["decode_s"] = time.perf_counter() - began
        connection.send_bytes(json.dumps(header).encode())
        for arrays in messages:
            connection.send_bytes(b"".join(np.ascontiguousarray(array).data for array in arrays))


def die_with(parent_pid: int) -> None:
    """End this process when the parent ends, even by SIGKILL and even in the middle of a decoder's C code."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_watch, args=(parent_pid,), daemon=True).start()


def _watch(parent_pid: int) -> None:
    """Portable fallback, and for a parent that died before the signal was asked for."""
    while os.getppid() == parent_pid:
        time.sleep(1.0)
    os._exit(1)


def main() -> None:
    """python -m pipeline.video.child FD PARENT_PID."""
    descriptor, parent_pid = int(sys.argv[1]), int(sys.argv[2])
    die_with(parent_pid)
    decord.logging.set_level(decord.logging.ERROR)
    serve(Connection(descriptor))


if __name__ == "__main__":
    main()

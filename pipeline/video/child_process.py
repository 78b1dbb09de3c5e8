"""The decoding process as its parent sees it: start it, ask whether it lives, kill it, read its last words.

A plain subprocess and not multiprocessing's: it must work from daemonic workers, after any start method, beside threads, and without
importing the caller's main module again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path

STARTUP_DEADLINE_S = 120.0
KILL_WAIT_S = 5.0
STDERR_TAIL_BYTES = 2000
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class ChildProcess:
    """A running `pipeline.video.child`. videos: requests sent so far. pending: messages that it still has to send."""

    def __init__(self) -> None:
        self.owner_pid = os.getpid()
        self.videos = 0
        self.pending = 0
        self._stderr = tempfile.TemporaryFile(buffering=0)
        self.connection, theirs = Pipe(duplex=True)
        package_root = str(Path(__file__).resolve().parents[2])
        search_path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-P", "-m", "pipeline.video.child", str(theirs.fileno()), str(os.getpid())]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._stderr,
            stderr=self._stderr,
            pass_fds=[theirs.fileno()],
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": search_path},
            start_new_session=True,  # an interrupt from the keyboard is the parent's to handle
        )
        theirs.close()
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        try:
            ready = self.connection.poll(STARTUP_DEADLINE_S) and self.connection.recv_bytes() == b"ready"
        except (EOFError, OSError):
            ready = False
        if not ready:
            last_words = self.last_stderr_line()
            self.kill()
            raise ChildProcessError(
                f"the decoding process does not start{last_words or ' and says nothing'}; is decord installed?"
            )

    def alive(self) -> bool:
        """Whether the process is running."""
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL and wait; a process stuck in the kernel (a dead network file system) is left behind."""
        self.connection.close()
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(KILL_WAIT_S)
        self._stderr.close()

    def how_it_ended(self) -> str:
        """For a message: the signal or exit status."""
        try:
            status = self.process.wait(KILL_WAIT_S)
        except subprocess.TimeoutExpired:
            return "without an answer"
        return f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"

    def forget_stderr(self) -> None:
        """Start a new record: parent and child share the file and its position."""
        self._stderr.seek(0)
        self._stderr.truncate(0)

    def last_stderr_line(self) -> str:
        """'; last message: ...' or nothing."""
        size = os.fstat(self._stderr.fileno()).st_size
        tail = os.pread(self._stderr.fileno(), STDERR_TAIL_BYTES, max(0, size - STDERR_TAIL_BYTES)).decode(
            "utf-8", "replace"
        )
        lines = [line.strip() for line in tail.splitlines() if line.strip()]
        return f"; last message: {lines[-1][:200]}" if lines else ""

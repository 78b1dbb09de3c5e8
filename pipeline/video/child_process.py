"""The decoding process as its parent sees it: start it, ask whether it lives, kill it, read its last words.

A plain subprocess and not multiprocessing's: it must work from daemonic workers, after any start method, beside threads, and without
importing the caller's main module again.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from select import select

from pipeline.video.arena import anonymous_file
from pipeline.video.messages import MessageBuffer, framed

STARTUP_DEADLINE_S = 120.0
SEND_DEADLINE_S = 10.0
READY = b"ready"
KILL_WAIT_S = 5.0
STDERR_TAIL_BYTES = 2000
LEAK_SHOWS_AFTER_VIDEOS = 200
LEAK_BYTES = 128 << 20
"""A process that has decoded so many videos is replaced as soon as it holds so much more than after its first. Whatever the first videos
leave behind (pools of frames, PyAV where there was damage) stays below; starting a process costs as much as decoding three short clips."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class ChildProcess:
    """A running `pipeline.video.child`. videos: requests sent so far. ready: whether it has said that it listens.

    Nothing here blocks for longer than it is told to, whatever the child does.
    """

    def __init__(self, arena: int) -> None:
        """arena: descriptor of the arena that it shall write pixels to."""
        self.owner_pid = os.getpid()
        self.videos = 0
        self.ready = False
        self.started = time.monotonic()
        self._bytes_at_first = 0
        self._messages = MessageBuffer()
        self._heard: list[bytes] = []
        # In memory: on a disk that fills up, what FFmpeg says of pictures that it made up would be lost without a word.
        self._stderr = open(anonymous_file(), "w+b", buffering=0)
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)
        package_root = str(Path(__file__).resolve().parents[2])
        search_path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
        numbers = [str(number) for number in (theirs.fileno(), os.getpid(), arena)]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.video.child", *numbers],
            stdin=subprocess.DEVNULL,
            stdout=self._stderr,
            stderr=self._stderr,
            pass_fds=[theirs.fileno(), arena],
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": search_path},
            start_new_session=True,  # an interrupt from the keyboard is the parent's to handle
        )
        theirs.close()

    def fileno(self) -> int:
        """To wait on."""
        return self.socket.fileno()

    def send(self, message: bytes) -> None:
        """Raises OSError when it is gone, or does not take a few kilobytes."""
        rest = memoryview(framed(message))
        while rest:
            if not select([], [self], [], SEND_DEADLINE_S)[1]:
                raise BrokenPipeError("the decoding process takes no requests")
            rest = rest[self.socket.send(rest) :]
        self.videos += 1

    def hear(self) -> list[bytes]:
        """The messages that have arrived in whole. Raises EOFError or OSError when it is gone."""
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise EOFError
        messages = self._messages.feed(piece)
        if messages and not self.ready:
            self.ready = messages.pop(0) == READY
            if not self.ready:
                raise EOFError("something else was started")
        return messages

    def wait(self, seconds: float) -> bytes | None:
        """Its next message, or None when it has not arrived in whole by then."""
        deadline = time.monotonic() + seconds
        while not self._heard:
            if not select([self], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            self._heard += self.hear()
        return self._heard.pop(0)

    def wait_until_ready(self) -> None:
        """Raises ChildProcessError when it does not start."""
        deadline = self.started + STARTUP_DEADLINE_S
        with suppress(EOFError, OSError):
            while not self.ready and select([self], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self._heard += self.hear()
        if not self.ready:
            raise self.not_started()

    def not_started(self) -> ChildProcessError:
        """The error to raise when it does not start; ends it."""
        last_words = self.last_stderr_line()
        self.kill()
        return ChildProcessError(
            f"the decoding process does not start{last_words or ' and says nothing'}; is decord2 installed?"
        )

    def alive(self) -> bool:
        """Whether the process is running."""
        return self.process.poll() is None

    def is_due(self, most_videos: int) -> bool:
        """Whether another should take its place: it has had so many videos, or its memory grows. To be asked after every video."""
        if self.videos <= 1:
            self._bytes_at_first = self.resident_bytes()
        if self.videos < LEAK_SHOWS_AFTER_VIDEOS or self.videos >= most_videos:
            return self.videos >= most_videos
        held = self.resident_bytes()
        return not held or held - self._bytes_at_first > LEAK_BYTES

    def resident_bytes(self) -> int:
        """What it holds in memory; 0 where the system does not say, as only Linux does."""
        with suppress(OSError):
            return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return 0

    def kill(self) -> None:
        """SIGKILL and wait; a process stuck in the kernel (a dead network file system) is left behind."""
        self.socket.close()
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

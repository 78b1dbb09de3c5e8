"""The parent's end of the pipe to a worker, which never waits for long: not for the rest of a message, nor for room to send one.

A worker that is stopped in the middle of a message, or in the middle of one for it, thus costs its parent nothing until its time is up
(`crew.Crew.expire`). The worker's end is an ordinary `Connection`. What arrives comes from our own processes, so it may be pickled.
"""

from __future__ import annotations

import os
import select
from multiprocessing.connection import Connection

from pipeline.video.messages import LENGTH, framed

_REST_MS = 2
"""How long the next piece of a message may take, where the first has come. Without it each piece is another turn of the parent's loop."""


class WorkerPipe:
    """One end of a pipe, which is this one's from now on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        os.set_blocking(connection.fileno(), False)
        self._more = select.poll()
        self._more.register(connection.fileno(), select.POLLIN)
        self._unsent = bytearray()
        self._expect(LENGTH.size, is_length=True)

    def _expect(self, size: int, *, is_length: bool) -> None:
        self._arriving, self._arrived, self._is_length = bytearray(size), 0, is_length

    def fileno(self) -> int:
        """To wait on."""
        return self._connection.fileno()

    @property
    def waits_for_room(self) -> bool:
        """Whether a part of what was sent is still here, for the worker has not taken what came before it."""
        return bool(self._unsent)

    def send(self, message: bytes | memoryview) -> None:
        """Send as much as there is room for, the rest when `go_on_sending` is called. A worker that is gone is found by `hear`."""
        self._unsent += framed(bytes(message))
        self.go_on_sending()

    def go_on_sending(self) -> None:
        """Send what there is room for."""
        try:
            while self._unsent:
                del self._unsent[: os.write(self.fileno(), self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()

    def hear(self) -> bytearray | None:
        """The next message, or None where none has arrived in whole. Raises EOFError or OSError when the worker is gone and all that it
        said has been heard."""
        while self._fill():
            whole = self._arriving
            if not self._is_length:
                self._expect(LENGTH.size, is_length=True)
                return whole
            (length,) = LENGTH.unpack(whole)
            if length < 0:
                raise EOFError(f"a message of {length} bytes was announced")
            self._expect(length, is_length=False)
        return None

    def _fill(self) -> bool:
        """Whether what is expected has arrived."""
        while self._arrived < len(self._arriving):
            try:
                piece = os.readv(self.fileno(), [memoryview(self._arriving)[self._arrived :]])
            except BlockingIOError:
                begun = self._arrived > 0 or not self._is_length
                if begun and self._more.poll(_REST_MS):
                    continue
                return False
            if not piece:
                raise EOFError
            self._arrived += piece
        return True

    def close(self) -> None:
        """Let go of it."""
        self._connection.close()

"""No connections while code of others makes a network: what it would fetch becomes an error instead of a surprise.

Inside `no_connections` every connection and every look-up of a host name raises `Refused`, in all threads of this process.
Child processes are not covered: hub entries and model factories start none.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Refused(OSError):
    """A connection that nobody allowed."""


@contextmanager
def no_connections() -> Iterator[None]:
    """Refuse connections other than to sockets of this machine's file system."""
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def refuse(host: object, *_: Any, **__: Any) -> Any:
        raise Refused(f"it would connect to {host}, and nothing may be downloaded unasked")

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != getattr(socket, "AF_UNIX", None):
            refuse(address[0] if isinstance(address, tuple) else address)
        connect(self, address)

    setattr(socket, "getaddrinfo", refuse)  # noqa: B010 - mypy allows no plain assignment to a function
    setattr(socket.socket, "connect", guarded)  # noqa: B010
    try:
        yield
    finally:
        setattr(socket, "getaddrinfo", look_up)  # noqa: B010
        setattr(socket.socket, "connect", connect)  # noqa: B010

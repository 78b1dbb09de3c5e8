"""The decoding process: requests come in over a socket; pixels go into the arena, then facts over the socket.

Started and killed through `child_process.ChildProcess`.

A Reject becomes a refusal. Any other exception is a mistake of ours: it ends the process with its traceback on stderr, which the
parent reports as a crash of the decoder.
"""

from __future__ import annotations

import resource
import sys
import time
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection

from common.freed_memory import OF_A_VIDEO, keep_freed_memory
from common.parent_death import die_with
from pipeline.video.arena import write_at
from pipeline.video.decord_library import decord
from pipeline.video.messages import DecodeHeader, DecodeRefusal, DecodeRequest, answer_to_bytes
from pipeline.video.rejects import Reject
from pipeline.video.windows import decode

BASE_ADDRESS_SPACE_BYTES = 6 << 30
"""What a decoding process may map beside the squares that it keeps; 1080p takes 0.6 GiB. Beyond it an allocation fails, and that is
said of the video, instead of the machine's memory being taken."""


def limit_address_space(limit: int) -> None:
    """What this process may map from now on, in bytes."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    with suppress(ValueError, OSError):  # macOS knows the limit and refuses to set it
        resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))


def serve(connection: Connection, arena: int) -> None:
    """Answer requests until the other side closes. arena: descriptor."""
    connection.send_bytes(b"ready")
    while True:
        try:
            request = DecodeRequest.from_bytes(connection.recv_bytes())
        except EOFError:
            return
        began = time.perf_counter()
        allowed = BASE_ADDRESS_SPACE_BYTES + 3 * request.layout.size * len(request.passes)
        limit_address_space(allowed)
        answer: DecodeHeader | DecodeRefusal
        try:
            answer, passes = decode(request)
            for place, arrays in zip(request.places, passes, strict=True):
                end = write_at(arena, place, arrays)
                assert end == place + request.layout.size, (end, place, request.layout)
        except Reject as reject:
            answer = DecodeRefusal(reject.reason, reject.detail)
        except MemoryError:
            detail = (
                f"{request.path}: decoding it takes more memory than the {allowed / 2**30:.1f} GiB that it may take"
            )
            answer = DecodeRefusal("too_large", detail)
        answer = replace(answer, decode_s=time.perf_counter() - began)
        connection.send_bytes(answer_to_bytes(answer))


def main() -> None:
    """python -m pipeline.video.child SOCKET PARENT_PID ARENA."""
    descriptor, parent_pid, arena = (int(argument) for argument in sys.argv[1:])
    die_with(parent_pid)
    keep_freed_memory(OF_A_VIDEO)
    decord.logging.set_level(decord.logging.INFO)  # what `complaints` listens for
    serve(Connection(descriptor), arena)


if __name__ == "__main__":
    main()

"""The decoding process: requests come in over a socket, windows go out. Started and killed by `decoder.Decoder`.

A Reject becomes a refusal. Any other exception is a mistake of ours: it ends the process with its traceback on stderr, which the
parent reports as a crash of the decoder.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection

import decord
import numpy as np

from common.parent_death import die_with
from pipeline.video.messages import DecodeHeader, DecodeRefusal, DecodeRequest, answer_to_bytes
from pipeline.video.rejects import Reject
from pipeline.video.windows import decode


def serve(connection: Connection) -> None:
    """Answer requests until the other side closes."""
    connection.send_bytes(b"ready")
    while True:
        try:
            request = DecodeRequest.from_bytes(connection.recv_bytes())
        except EOFError:
            return
        began = time.perf_counter()
        answer: DecodeHeader | DecodeRefusal
        try:
            answer, messages = decode(request)
        except Reject as reject:
            answer, messages = DecodeRefusal(reject.reason, reject.detail), []
        answer = replace(answer, decode_s=time.perf_counter() - began)
        connection.send_bytes(answer_to_bytes(answer))
        for arrays in messages:
            connection.send_bytes(b"".join(np.ascontiguousarray(array).data for array in arrays))


def main() -> None:
    """python -m pipeline.video.child FD PARENT_PID."""
    descriptor, parent_pid = int(sys.argv[1]), int(sys.argv[2])
    die_with(parent_pid)
    decord.logging.set_level(decord.logging.ERROR)
    serve(Connection(descriptor))


if __name__ == "__main__":
    main()

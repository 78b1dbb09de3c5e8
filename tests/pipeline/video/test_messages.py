"""What arrives in pieces, and what never arrives: a decoding process that stops in the middle of a message holds nobody up."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from pipeline.video import child_process
from pipeline.video.arena import Arena, write_at
from pipeline.video.decoder import Decoder
from pipeline.video.messages import LONGEST_MESSAGE, MessageBuffer, answer_from_bytes, framed
from tests.pipeline.video.asking import file, reject

HALF_A_MESSAGE = """
import json, socket, sys, time
connection = socket.socket(fileno=int(sys.argv[1]))
connection.sendall((5).to_bytes(4, "big") + b"ready")
connection.recv(1 << 16)
connection.sendall({start!r})
time.sleep(60)
"""


def test_messages_come_whole_whatever_the_pieces() -> None:
    sent = [b"", b"one", b"x" * 70_000, b"last"]
    stream = b"".join(framed(message) for message in sent)
    for step in (1, 3, 4096, len(stream)):
        buffer = MessageBuffer()
        got = [message for at in range(0, len(stream), step) for message in buffer.feed(stream[at : at + step])]
        assert got == sent


@pytest.mark.parametrize("length", [-1, LONGEST_MESSAGE + 1])
def test_a_length_that_no_message_has(length: int) -> None:
    with pytest.raises(EOFError, match=str(length)):
        MessageBuffer().feed(struct.pack("!i", length))


@pytest.mark.parametrize(
    "message", [b"[]", b'{"a": 1, "b": 2}', b'{"DecodeHeader": {}}', b'{"DecodeRefusal": {"x": 1}}', b"\xff"]
)
def test_an_answer_that_none_gives_is_a_crash_of_the_decoder(message: bytes) -> None:
    """A process in which a file has run wild may say anything; whoever listens takes a ValueError for its end."""
    with pytest.raises(ValueError):
        answer_from_bytes(message)


@pytest.mark.parametrize("start", [framed(json.dumps({"DecodeHeader": {}}).encode())[:-3], b"\x00\x00"])
def test_a_decoder_that_stalls_in_the_middle_of_a_message(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    """It has begun to answer, so waiting for something to read is not enough."""
    script = tmp_path / "python"
    body = HALF_A_MESSAGE.format(start=start)
    (tmp_path / "child.py").write_text(body)
    # Called as: python -P -m pipeline.video.child SOCKET PARENT ARENA
    script.write_text(f'#!/bin/sh\nshift 3\nexec "{child_process.sys.executable}" "{tmp_path}/child.py" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(child_process.sys, "executable", str(script))
    with Decoder() as decoder:
        refused = reject(decoder, file(clip), deadline_s=0.5)
        assert refused.reason == "timeout" and 0.5 <= refused.seconds < 30
        assert decoder.child_pid is None


def test_an_arena_is_read_where_it_was_written_and_may_grow() -> None:
    arena = Arena()
    arena.grow(100)
    first = np.arange(10, dtype=np.uint8)
    assert write_at(arena.descriptor, 5, [first, first[::2]]) == 20
    view = arena.read(5, (2, 5))
    assert view.tolist() == first.reshape(2, 5).tolist() and not view.flags.writeable
    arena.grow(1 << 20)
    big = np.full(1000, 1.5, np.float32)
    write_at(arena.descriptor, 4096, [big])
    assert (arena.read(4096, (10, 100), np.float32) == 1.5).all()
    arena.close()
    assert view.tolist() == first.reshape(2, 5).tolist(), "a view outlives its arena"

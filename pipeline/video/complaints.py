"""What FFmpeg says on standard error about pictures that it had to make up.

Comes in: standard error of the decoding process, which is a file that its parent has opened. Goes out: the first line that speaks of
missing or damaged pictures.

Why: decord hands through the frames of a damaged stream without a word. FFmpeg's H.264, MPEG-4 and HEVC decoders cover damage up: they
repeat or guess what is missing, mark the frame, and return no error. decord drops the mark. What is left of it is the log, which names
each covering up. In the healthy clips of `docs/decoders.md` no such line occurs.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat

STANDARD_ERROR = 2
PIECE_BYTES = 1 << 20

MADE_UP = re.compile(
    rb"concealing \d+ DC"  # error_resilience.c: H.264, MPEG-1, -2 and -4, VC-1
    rb"|error while decoding MB"
    rb"|Frame num gap"  # h264: a frame is missing, the one before is taken for it
    rb"|[Mm]issing reference picture|reference picture missing"
    rb"|Could not find ref with POC"  # hevc: a grey picture is taken for it
)


class Complaints:
    """What is written to standard error from now on. Hears nothing where that is a terminal or a pipe."""

    def __init__(self) -> None:
        is_file = stat.S_ISREG(os.fstat(STANDARD_ERROR).st_mode)
        readable = fcntl.fcntl(STANDARD_ERROR, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        self._start = os.lseek(STANDARD_ERROR, 0, os.SEEK_CUR) if is_file and readable else None

    def first(self) -> str | None:
        """The first complaint so far, on one line."""
        if self._start is None:
            return None
        at, rest = self._start, b""
        while piece := os.pread(STANDARD_ERROR, PIECE_BYTES, at):
            at += len(piece)
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if MADE_UP.search(line):
                    return line.decode("utf-8", "replace").strip()
        return rest.decode("utf-8", "replace").strip() if MADE_UP.search(rest) else None

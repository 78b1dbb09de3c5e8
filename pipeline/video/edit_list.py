"""Where an MP4's edit list ends what is shown.

Comes in: a path. Goes out: the presentation time at which the video track is cut off, if its edit list says so.

Why: frames outside the edit list are in the file, and decord lists their time stamps, but its decoder drops them. Index and frame
then no longer correspond, and past the end decord repeats the last frame without an error. FFmpeg cuts clips in this way when it
copies streams (`-ss -t -c copy`, the usual way in which Kinetics is made), so such files are common.
Box layout: ISO/IEC 14496-12, sections 8.2.2 (mvhd), 8.4.3 (hdlr), 8.6.6 (elst).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

MAX_MOOV_BYTES = 256 * 2**20


def shown_until_s(path: Path) -> float | None:
    """Seconds after which the edit list of a video track drops frames; 0.0 if it has several parts; None without an edit list.

    None also for files that are no MP4 and for broken ones: the decoder has the last word on those.
    """
    moov = _read_moov(path)
    if moov is None:
        return None
    try:
        return _shown_until_s(moov)
    except (struct.error, IndexError):
        return None


def _shown_until_s(moov: bytes) -> float | None:
    ends_s: list[float] = []
    timescale = 0
    for kind, body in _boxes(moov):
        if kind == b"mvhd":
            timescale = struct.unpack_from(">I", body, 20 if body[0] == 1 else 12)[0]
        elif kind == b"trak" and _is_video(body):
            durations = [duration for duration, start in _edits(body) if start >= 0]
            if durations and timescale:
                ends_s.append(durations[0] / timescale if len(durations) == 1 and durations[0] > 0 else 0.0)
    return min(ends_s) if ends_s else None


def _is_video(trak: bytes) -> bool:
    handlers = [
        body[8:12] for kind, mdia in _boxes(trak) if kind == b"mdia" for k, body in _boxes(mdia) if k == b"hdlr"
    ]
    return b"vide" in handlers


def _edits(trak: bytes) -> list[tuple[int, int]]:
    """(duration in the movie's time scale, first media time or -1 for a pause) of each edit."""
    for kind, edts in _boxes(trak):
        if kind != b"edts":
            continue
        for inner, elst in _boxes(edts):
            if inner == b"elst":
                layout, step = (">Qq", 20) if elst[0] == 1 else (">Ii", 12)
                count = struct.unpack_from(">I", elst, 4)[0]
                return [struct.unpack_from(layout, elst, 8 + step * i) for i in range(min(count, len(elst) // step))]
    return []


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        header = 8
        if size == 1:
            size, header = struct.unpack_from(">Q", data, at + 8)[0], 16
        if size == 0:
            size = len(data) - at
        if size < header:
            return
        yield kind, data[at + header : at + size]
        at += size


def _read_moov(path: Path) -> bytes | None:
    """The body of the top-level moov box, found by hopping over the others."""
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            size, kind = struct.unpack(">I4s", head)
            header = 8
            if size == 1:
                wide = file.read(8)
                if len(wide) < 8:
                    return None
                size, header = struct.unpack(">Q", wide)[0], 16
            if not kind.isalnum() or size < header:
                return None
            if kind == b"moov":
                return file.read(size - header) if size <= MAX_MOOV_BYTES else None
            file.seek(size - header, 1)
    return None

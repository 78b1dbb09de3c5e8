"""Why a video yields nothing: the reasons, and the checks that need no decoder.

Comes in: a path. Goes out: nothing, or a `Reject` whose reason is one of `REJECT_REASONS`; its detail is one line for a person.

There is no reason for "decodes to wrong pictures": no decoder reports that. In a fuzz of damaged H.264 files about half decode to
altered frames without any error, in decord, FFmpeg and OpenCV alike, so such damage cannot be told from content here.
"""

from __future__ import annotations

import stat
from pathlib import Path

REJECT_REASONS: dict[str, str] = {
    "missing": "there is no such file or folder",
    "not_fetched": "remote storage did not give this file, and gives others",
    "unreadable": "the file system refuses to read it (permissions, input/output error)",
    "empty_file": "the file has no bytes",
    "not_a_video": "the content is something else: text, a web page, a git-lfs pointer, a picture, an archive, a device",
    "no_video_stream": "a media file without pictures, such as audio only",
    "unsupported_codec": "the decoders at hand cannot read this codec or container",
    "corrupt": "the container cannot be read, or decoding raises an error",
    "too_short": "no frame has all the neighbours that the offsets ask for",
    "many_cuts": "more shot cuts than the set allows: a montage",
    "only_across_cuts": "every window crosses a shot cut",
    "too_small": "the frames are too small, or too narrow, to make a square from",
    "too_large": "the frames have more pixels, or decoding takes more memory, than a decoding process may use",
    "broken_frame": "a picture of a frame folder is missing, cannot be decoded or has another size than the first",
    "timeout": "decoding did not finish before the deadline and was killed",
    "decoder_crashed": "the decoding process died (segmentation fault, out of memory)",
}

HEAD_BYTES = 512
PICTURE_MAGIC = {
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
    b"BM": "a BMP picture",
    b"II*\x00": "a TIFF picture",
}
OTHER_MAGIC = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
}
DECORD_MAGIC = (b"\x1aE\xdf\xa3", b"RIFF", b"FLV")
CONTAINER_MAGIC = (
    b"\x1aE\xdf\xa3",
    b"RIFF",
    b"\x00\x00\x01\xba",
    b"\x00\x00\x01\xb3",
    b"OggS",
    b"FLV",
    b"\x30\x26\xb2\x75",
    b"GIF8",
)
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"moof", b"pnot")


LARGEST_FRAME_PIXELS = 1 << 27
"""Of a picture of a frame folder, by its header: 134 million (16,384 x 8,192), 400 MB as RGB. A picture of 739 bytes may claim 13 GB."""


class Reject(Exception):
    """A video that yields nothing. reason: a key of REJECT_REASONS. detail: one line. seconds: wall time spent on it."""

    def __init__(self, reason: str, detail: str, *, seconds: float = 0.0) -> None:
        assert reason in REJECT_REASONS, reason
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.seconds = seconds


def check_file(path: Path) -> bytes:
    """The first bytes of a regular file that is not plainly something else than a video; else raises Reject."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise Reject("not_a_video", f"{path} is a directory; use a dataset layout of frame folders for it")
        if not stat.S_ISREG(status.st_mode):
            raise Reject("not_a_video", f"{path} is no regular file")
        if status.st_size == 0:
            raise Reject("empty_file", f"{path} has 0 bytes")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Reject("missing", f"{path} does not exist{' (a dangling link)' if path.is_symlink() else ''}") from error
    except OSError as error:
        raise Reject("unreadable", f"{path}: {error.strerror or error}") from error
    content = foreign_content(head)
    if content is not None:
        raise Reject("not_a_video", f"{path} is {content}")
    return head


def foreign_content(head: bytes) -> str | None:
    """What a file that begins with `head` is when it is certainly no video, else None. GIF counts as a video."""
    for magic, name in (PICTURE_MAGIC | OTHER_MAGIC).items():
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP picture"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer (run git lfs pull)"
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page or XML text"
    return "text" if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    """Printable UTF-8; a character cut at the end of the excerpt is allowed."""
    decoded = head.decode("utf-8", "replace")
    bad = sum(not (char.isprintable() or char in "\t\r\n\f") for char in decoded[:-1])
    return bad == 0 and "\ufffd" not in decoded[:-1]


def is_container(head: bytes) -> bool:
    """Whether the first bytes are those of a known media container (MP4/MOV, Matroska, AVI, MPEG, Ogg, FLV, ASF, GIF)."""
    if head[4:8] in MP4_BOXES or head.startswith(CONTAINER_MAGIC):
        return True
    return any(len(head) > at + 188 and head[at] == head[at + 188] == 0x47 for at in (0, 4))


def keeps_count_in_decord(head: bytes) -> bool:
    """Whether the first bytes are those of MP4/MOV, Matroska/WebM, AVI or FLV."""
    return head[4:8] in MP4_BOXES or head.startswith(DECORD_MAGIC)

"""What the decoder's two processes say to each other. Light on purpose: both import this, and the parent needs no video library.

    parent ── DecodeRequest ──────────────────▶ child, which writes the pixels of pass i into the arena at places[i]
           ◀── DecodeHeader or DecodeRefusal ──

All that is said is JSON: a child that was crashed by a hostile file must not be able to make its parent run anything. Nor to make it
wait: a message is put together from whatever pieces arrive, so whoever listens can give up on half of one.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.video.cut_rule import CutRule

LONGEST_MESSAGE = 1 << 26
LENGTH = struct.Struct("!i")
"""How `multiprocessing.connection.Connection`, which decoders and workers use, marks the length of a message of less than 2 GiB."""


@dataclass(frozen=True)
class DecodeRequest:
    """What is asked of one video. path as text; fps only for frame folders; sizes in px.

    places: for each pass the offset in the arena, from which `PixelLayout.size` bytes are its own. cuts: None does not look for any.
    """

    video_id: str
    path: str
    kind: str
    fps: float | None
    passes: tuple[int, ...]
    seed: int
    offsets: tuple[int, ...]
    image_size: int
    flow_size: int
    keep_neighbours: bool
    places: tuple[int, ...] = ()
    cuts: CutRule | None = None

    @property
    def layout(self) -> PixelLayout:
        return PixelLayout(self.image_size, self.flow_size, len(self.offsets), self.keep_neighbours)

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_bytes(message: bytes) -> DecodeRequest:
        body: dict[str, Any] = json.loads(message)
        lists = {name: tuple(body[name]) for name in ("passes", "offsets", "places")}
        cuts = None if body["cuts"] is None else CutRule(**body["cuts"])
        return DecodeRequest(**{**body, **lists, "cuts": cuts})


@dataclass(frozen=True)
class VideoFacts:
    """n_frames: frames that can be shown. n_anchors: valid ones. fps: 1 / nominal interval. width, height: px, upright.

    engine: the frame source that read it. frames_decoded: frames that the windows use. n_cuts: shot cuts, where they were looked for;
    n_anchors_across: anchors that are not among the valid ones because their windows cross one.
    """

    n_frames: int
    n_anchors: int
    fps: float
    width: int
    height: int
    duration_s: float
    engine: str
    frames_decoded: int
    n_cuts: int = 0
    n_anchors_across: int = 0


@dataclass(frozen=True)
class WindowFrames:
    """Which frames make a window: places in presentation order and times, the neighbours in the order of the offsets."""

    anchor_index: int
    anchor_time_s: float
    neighbour_indices: tuple[int, ...]
    neighbour_times_s: tuple[float, ...]


@dataclass(frozen=True)
class DecodeHeader:
    """A video that yields windows: one per pass, in the order asked for. decode_s: wall time in the child."""

    facts: VideoFacts
    windows: tuple[WindowFrames, ...]
    decode_s: float = 0.0


@dataclass(frozen=True)
class DecodeRefusal:
    """A video that yields nothing. reason, detail: as in `rejects.Reject`."""

    reason: str
    detail: str
    decode_s: float = 0.0


def answer_to_bytes(answer: DecodeHeader | DecodeRefusal) -> bytes:
    """The child's first message."""
    return json.dumps({type(answer).__name__: asdict(answer)}).encode()


def answer_from_bytes(message: bytes) -> DecodeHeader | DecodeRefusal:
    """Inverse of `answer_to_bytes`. Raises ValueError for anything else: whoever says that has lost its mind."""
    try:
        ((kind, body),) = json.loads(message).items()
        if kind == DecodeRefusal.__name__:
            return DecodeRefusal(**body)
        windows = tuple(
            WindowFrames(
                window["anchor_index"],
                window["anchor_time_s"],
                tuple(window["neighbour_indices"]),
                tuple(window["neighbour_times_s"]),
            )
            for window in body["windows"]
        )
        return DecodeHeader(VideoFacts(**body["facts"]), windows, body["decode_s"])
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no answer of a decoding process: {message[:80]!r}") from error


@dataclass(frozen=True)
class PixelLayout:
    """Where the uint8 arrays of one pass lie behind each other in the arena."""

    image_size: int
    flow_size: int
    n_offsets: int
    keep_neighbours: bool

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """In order: image, anchor's flow square, neighbours' flow squares, neighbours' images."""
        image, flow = (self.image_size, self.image_size, 3), (self.flow_size, self.flow_size, 3)
        kept = [(self.n_offsets, *image)] if self.keep_neighbours else []
        return [image, flow, (self.n_offsets, *flow), *kept]

    @property
    def size(self) -> int:
        """Bytes of one pass."""
        return sum(int(np.prod(shape)) for shape in self.shapes)


class MessageBuffer:
    """Messages put together from the pieces in which they arrive."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, piece: bytes) -> list[bytes]:
        """The messages that this piece completes. Raises EOFError for a length that no message has: the sender has lost its mind."""
        self._bytes += piece
        whole = []
        while len(self._bytes) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._bytes)
            if not 0 <= length <= LONGEST_MESSAGE:
                raise EOFError(f"a message of {length} bytes was announced")
            end = LENGTH.size + length
            if len(self._bytes) < end:
                break
            whole.append(bytes(self._bytes[LENGTH.size : end]))
            del self._bytes[:end]
        return whole


def framed(message: bytes) -> bytes:
    """A message as it goes over the socket."""
    return LENGTH.pack(len(message)) + message

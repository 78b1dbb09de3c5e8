"""What the decoder's two processes say to each other. Light on purpose: both import this, and the parent needs no video library.

    parent ── DecodeRequest ──────────────────▶ child
           ◀── DecodeHeader or DecodeRefusal ──
           ◀── raw bytes, one message per pass ── as `message_layout` says, only after a header

All but the raw bytes is JSON: a child that was crashed by a hostile file must not be able to make its parent run anything.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class DecodeRequest:
    """What is asked of one video. path as text; fps only for frame folders; sizes in px."""

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

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_bytes(message: bytes) -> DecodeRequest:
        body: dict[str, Any] = json.loads(message)
        return DecodeRequest(**{**body, "passes": tuple(body["passes"]), "offsets": tuple(body["offsets"])})


@dataclass(frozen=True)
class VideoFacts:
    """n_frames: frames that can be shown. n_anchors: valid ones. fps: 1 / nominal interval. width, height: px, upright.

    engine: the frame source that read it. frames_decoded: frames that the windows use.
    """

    n_frames: int
    n_anchors: int
    fps: float
    width: int
    height: int
    duration_s: float
    engine: str
    frames_decoded: int


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
    """Inverse of `answer_to_bytes`."""
    ((kind, body),) = json.loads(message).items()
    if kind == DecodeRefusal.__name__:
        return DecodeRefusal(**body)
    assert kind == DecodeHeader.__name__, kind
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


def message_layout(image_size: int, flow_size: int, n_offsets: int, keep_neighbours: bool) -> list[tuple[int, ...]]:
    """Shapes of the uint8 arrays in one message, in order: image, anchor's flow square, neighbours' flow squares, neighbours' images."""
    image, flow = (image_size, image_size, 3), (flow_size, flow_size, 3)
    return [image, flow, (n_offsets, *flow)] + ([(n_offsets, *image)] if keep_neighbours else [])

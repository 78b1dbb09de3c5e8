"""What the decoder's two processes say to each other. Light on purpose: the parent imports this and no video library.

A request is one JSON message. The answer is a JSON header and, unless it is a reject, one message of raw bytes for each pass.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
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


def message_layout(image_size: int, flow_size: int, n_offsets: int, keep_neighbours: bool) -> list[tuple[int, ...]]:
    """Shapes of the uint8 arrays in one message, in order: image, anchor's flow square, neighbours' flow squares, neighbours' images."""
    image, flow = (image_size, image_size, 3), (flow_size, flow_size, 3)
    return [image, flow, (n_offsets, *flow)] + ([(n_offsets, *image)] if keep_neighbours else [])

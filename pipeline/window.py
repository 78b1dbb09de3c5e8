"""What passes between decoding and flow: a window of frames goes in, the flow of its pairs comes out.

A window is an anchor frame with its K neighbours, already cropped to the square that flow is computed on. Decoding makes
windows, an estimator turns each into K flow fields, anchor → neighbour, in pixels of that square.

Shape legend: K neighbours, S side of the flow square, C = 2 channels (dx right, dy down).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """An anchor frame and its neighbours, as the flow network sees them.

    anchor_hwc: [S, S, 3] uint8 RGB. neighbours_khwc: [K, S, S, 3] uint8 RGB.
    offsets: K signed nominal offsets (-2, -1, +1, +2). video_id/path name the source;
    frame indices are positions in decoding order, times_s their presentation time stamps.
    """

    video_id: str
    path: Path
    offsets: tuple[int, ...]
    anchor_index: int
    neighbour_indices: tuple[int, ...]
    anchor_time_s: float
    neighbour_times_s: tuple[float, ...]
    anchor_hwc: NDArray[np.uint8]
    neighbours_khwc: NDArray[np.uint8]


@dataclass(frozen=True)
class WindowFlow:
    """flow_kchw: [K, 2, S, S] float32 pixels of the S square; confidence_khw: [K, S, S] float32 in [0, 1] or None.
    reverse_kchw: [K, 2, S, S], neighbour → anchor on the neighbour's grid, or None where nobody asked for it.

    An estimator may return non-finite values (it must not hide them); the engine counts such pairs and never stores them.
    """

    flow_kchw: NDArray[np.float32]
    confidence_khw: NDArray[np.float32] | None = None
    reverse_kchw: NDArray[np.float32] | None = None

"""Windows of many videos → batches of frame pairs for a network, whatever network that is.

    windows ─▶ (anchor, neighbour) pairs ─▶ as many as memory holds ─▶ PairNetwork.run ─▶ flow per window
               a frame in several pairs is handed over once

Windows of whatever videos become one list of distinct frames and one list of pairs, so that a network can do what belongs
to a frame once, however many windows the frame is in. Pairs run in batches below a memory budget; a batch that runs out of
memory all the same is halved, and stays halved.

Shape legend: F frames, P pairs, K neighbours, H W rows and columns.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from common.memory import is_out_of_memory
from pipeline.flow.memory import pairs_that_fit
from pipeline.window import Window, WindowFlow

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairFlow:
    """flow_p2hw: [P, 2, H, W] float32 pixels. confidence_phw: [P, H, W] float32 in [0, 1] or None. reverse_p2hw: the way back, or None."""

    flow_p2hw: NDArray[np.float32]
    confidence_phw: NDArray[np.float32] | None = None
    reverse_p2hw: NDArray[np.float32] | None = None


class PairNetwork(Protocol):
    """A network that relates two frames. device: where it runs, which decides what memory it may take."""

    device: torch.device

    def pair_bytes(self, rows: int, columns: int) -> int:
        """Upper bound of what one pair of rows×columns frames adds to the peak of a run."""
        ...

    def run(self, frames_fhwc: NDArray[np.uint8], pairs: Sequence[tuple[int, ...]]) -> PairFlow:
        """Flow from frame a to frame b for every (a, b) of `pairs`. frames: [F, H, W, 3] RGB, each once.

        Of an estimator with `opposite` every pair names a third frame, as far on the other side of a as b is on this one.
        Raises ValueError on frames that it cannot take, and the memory error when memory runs out.
        """
        ...


class FrameTable:
    """Distinct frames of a batch of windows, each with its index.

    Frames are looked up by what their window calls them, and taken for the same only if their pixels agree as well.
    """

    def __init__(self) -> None:
        self.frames_hwc: list[NDArray[np.uint8]] = []
        self._index: dict[tuple[str, str, int], int] = {}

    def add(self, window: Window, position: int, frame_hwc: NDArray[np.uint8]) -> int:
        """Index of the frame at `position` of the window's video."""
        key = (window.video_id, str(window.path), position)
        known = self._index.get(key)
        if known is not None and np.array_equal(self.frames_hwc[known], frame_hwc):
            return known
        self._index[key] = len(self.frames_hwc)
        self.frames_hwc.append(frame_hwc)
        return self._index[key]


class PairEstimator:
    """The `FlowEstimator` of a network that takes pairs.

    batch_pairs is the current limit of pairs per run; halvings counts how often memory made it shrink. opposite: whether the network
    takes the frame on the other side of the anchor too; windows must then hold neighbours at -k and +k.
    """

    def __init__(self, name: str, network: PairNetwork, batch_pairs: int, *, opposite: bool = False) -> None:
        self.name, self.network, self.batch_pairs, self.opposite = name, network, batch_pairs, opposite
        self.halvings = 0

    def estimate(self, windows: Sequence[Window]) -> list[WindowFlow]:
        """One WindowFlow per window, in order; windows may be of different videos and differ in K and size.

        Raises ValueError on frames that the network cannot take or that are too large for the memory, and the memory
        error itself if a single pair runs out of it all the same.
        """
        by_size: dict[tuple[int, ...], list[int]] = {}
        for i, window in enumerate(windows):
            by_size.setdefault(window.anchor_hwc.shape, []).append(i)
        done: dict[int, WindowFlow] = {}
        for members in by_size.values():
            done.update(zip(members, self._estimate_alike([windows[i] for i in members]), strict=True))
        return [done[i] for i in range(len(windows))]

    def _estimate_alike(self, windows: Sequence[Window]) -> list[WindowFlow]:
        jobs = [(w, k) for w, window in enumerate(windows) for k in range(len(window.offsets))]
        flows: list[NDArray[np.float32]] = []
        confidences: list[NDArray[np.float32]] = []
        reverses: list[NDArray[np.float32]] = []
        rows, columns = windows[0].anchor_hwc.shape[:2]
        fitting = pairs_that_fit(self.network.pair_bytes(rows, columns), rows, columns, self.network.device)
        while len(flows) < len(jobs):
            part = jobs[len(flows) : len(flows) + min(self.batch_pairs, fitting)]
            ran = self._run_or_halve(windows, part)
            if ran is None:
                continue
            flows.extend(ran.flow_p2hw)
            if ran.confidence_phw is not None:
                confidences.extend(ran.confidence_phw)
            if ran.reverse_p2hw is not None:
                reverses.extend(ran.reverse_p2hw)
        return list(_regroup(windows, flows, confidences, reverses))

    def _run_or_halve(self, windows: Sequence[Window], jobs: Sequence[tuple[int, int]]) -> PairFlow | None:
        """Run the jobs (window, neighbour); None after memory ran out and the batch size was halved."""
        frames_fhwc, pairs = self._frames_and_pairs(windows, jobs)
        try:
            return self.network.run(frames_fhwc, pairs)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(jobs) == 1:
                raise
        # Outside the except clause: the exception keeps the failed run's tensors alive.
        self.batch_pairs = max(1, len(jobs) // 2)
        self.halvings += 1
        log.warning("%s: %d pairs do not fit the memory of %s; going on with %d pairs per run",
                    self.name, len(jobs), self.network.device, self.batch_pairs)  # fmt: skip
        if self.network.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _frames_and_pairs(
        self, windows: Sequence[Window], jobs: Sequence[tuple[int, int]]
    ) -> tuple[NDArray[np.uint8], list[tuple[int, ...]]]:
        """Jobs (window, neighbour) → distinct frames [F, H, W, 3], and the pairs as indices of them."""
        table = FrameTable()
        pairs: list[tuple[int, ...]] = []
        for w, k in jobs:
            window = windows[w]
            anchor = table.add(window, window.anchor_index, window.anchor_hwc)
            others = [k, self._opposite(window, k)] if self.opposite else [k]
            pairs.append(
                (anchor, *(table.add(window, window.neighbour_indices[o], window.neighbours_khwc[o]) for o in others))
            )
        return np.stack(table.frames_hwc), pairs

    def _opposite(self, window: Window, k: int) -> int:
        """The neighbour on the other side of the anchor. Raises ValueError where there is none."""
        if -window.offsets[k] not in window.offsets:
            raise ValueError(
                f"{self.name} takes frames on both sides of the anchor: offset {window.offsets[k]} needs {-window.offsets[k]} beside it, "
                f"and the offsets are {', '.join(map(str, window.offsets))}"
            )
        return window.offsets.index(-window.offsets[k])


def _regroup(
    windows: Sequence[Window],
    flows: Sequence[NDArray[np.float32]],
    confidences: Sequence[NDArray[np.float32]],
    reverses: Sequence[NDArray[np.float32]],
) -> Iterator[WindowFlow]:
    """Pairs in order → one WindowFlow per window."""
    start = 0
    for window in windows:
        stop = start + len(window.offsets)
        confidence_khw = np.stack(confidences[start:stop]) if confidences else None
        reverse_kchw = np.stack(reverses[start:stop]) if reverses else None
        yield WindowFlow(np.stack(flows[start:stop]), confidence_khw, reverse_kchw)
        start = stop

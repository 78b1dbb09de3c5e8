"""Fresh frame pairs with flow that is computed inside the training step, as the paper's code trains: what shards stand in for.

Videos and the settings of a shard set come in; per training step a batch goes out as `trainer.views` takes it. Order is the same
arithmetic as in cached training (`trainer.order`): position p of a run names a video and a neighbour, and the epoch that p lies
in is the pass whose anchor is taken. So epoch n sees the very pairs that extraction stores as pass n, and no pair comes twice before
a video's anchors have all been taken.

Only the pair that is trained on is estimated. Frames are decoded by `workers` decoding processes one batch ahead of the step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from common.command import PlainError
from pipeline.flow.estimator import FlowEstimator
from pipeline.video.datasets import Video
from pipeline.video.decoder import DecodedAnchor, Decoder
from pipeline.video.rejects import Reject
from shards.codec import FlowRangeError, channel_std_px, pair_exponent
from shards.schema import Settings
from trainer.batch import MAX_REPLACEMENTS
from trainer.order import Ints, SampleOrder, batch_positions
from trainer.views import Pixels


@dataclass(frozen=True)
class OnlineBatch:
    """positions int64 [b] count samples over the run; pixels lie on the training device, shaped as those of shards."""

    positions: Ints
    pixels: Pixels


Asked = list[Future[DecodedAnchor | None]]
"""An anchor with one neighbour (K = 1) per position; None where the video yields nothing."""


class OnlinePairs:
    """Batches without end; a context manager that ends its decoding processes.

    videos: at least one that can be decoded. settings: sizes, offsets, seed and noise floor of the set that is stood in for.
    order: over the videos, neighbours in the order of settings.offsets. wait_s, flow_s: seconds spent so far waiting for frames and
    estimating flow.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        settings: Settings,
        estimator: FlowEstimator,
        order: SampleOrder,
        *,
        batch_size: int,
        device: torch.device,
        workers: int,
    ) -> None:
        self.videos, self.settings, self.estimator, self.order = list(videos), settings, estimator, order
        self.batch_size, self.device = batch_size, device
        self.wait_s = self.flow_s = 0.0
        self.replaced = 0
        self._decoders: list[Decoder] = []
        self._own = threading.local()
        self._pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode")
        self._ahead = 1 if workers else 0

    def batches(self) -> Iterator[OnlineBatch]:
        """Batch 0, 1, 2, ... PlainError where so many pairs in a row are unusable that the videos must be at fault."""
        step = 0
        asked: dict[int, Asked] = {}
        while True:
            for number in range(step, step + 1 + self._ahead):
                if number not in asked:
                    asked[number] = self._ask(batch_positions(number, self.batch_size))
            yield self._batch(batch_positions(step, self.batch_size), asked.pop(step))
            step += 1

    def _ask(self, positions: Ints) -> Asked:
        visits = self.order.visits(positions)
        epochs = positions // len(self.order)
        return [
            self._pool.submit(self._decode, int(video), int(neighbour), int(epoch))
            for video, neighbour, epoch in zip(*visits, epochs, strict=True)
        ]

    def _decode(self, video: int, neighbour: int, epoch: int) -> DecodedAnchor | None:
        """In a thread of the pool, each with a decoding process of its own. None where the video yields nothing."""
        decoder: Decoder | None = getattr(self._own, "decoder", None)
        if decoder is None:
            decoder = self._own.decoder = Decoder()
            self._decoders.append(decoder)
        try:
            (anchor,) = decoder.windows(self.videos[video], (epoch,), self.settings).anchors
        except Reject:
            return None
        one = slice(neighbour, neighbour + 1)
        window = replace(
            anchor.window,
            offsets=anchor.window.offsets[one],
            neighbour_indices=anchor.window.neighbour_indices[one],
            neighbour_times_s=anchor.window.neighbour_times_s[one],
            neighbours_khwc=anchor.window.neighbours_khwc[one],
        )
        return replace(anchor, window=window)

    def _batch(self, positions: Ints, asked: Asked) -> OnlineBatch:
        b, side, flow_side = len(positions), self.settings.image_size, self.settings.flow_size
        images = np.empty((b, side, side, 3), np.uint8)
        flows = np.empty((b, 2, flow_side, flow_side), np.int16)
        quanta = np.empty(b, np.float32)
        rows = np.arange(b)
        for attempt in range(1, MAX_REPLACEMENTS + 1):
            missing = []
            for row, pair, flow_chw in self._estimated(rows, asked):
                fixed = None if flow_chw is None else self._fixed_point(flow_chw)
                if pair is None or fixed is None:
                    missing.append(row)
                    continue
                images[row] = pair.image_hwc
                flows[row], quanta[row] = fixed
            if not missing:
                pixels = Pixels(*(torch.from_numpy(a).to(self.device) for a in (images, flows, quanta)))
                return OnlineBatch(positions, pixels)
            self.replaced += len(missing)
            rows = np.array(missing)
            asked = self._ask(positions[rows] + attempt)
        raise PlainError(
            f"{MAX_REPLACEMENTS} pairs in a row could not be used: the videos are damaged, or nothing moves"
        )

    def _estimated(
        self, rows: Ints, asked: Asked
    ) -> list[tuple[int, DecodedAnchor | None, NDArray[np.float32] | None]]:
        """(row, pair, flow [2, s, s] px) of every row asked for; None where the video yielded nothing."""
        began = time.perf_counter()
        pairs = [future.result() for future in asked]
        decoded = time.perf_counter()
        flows = iter(self.estimator.estimate([pair.window for pair in pairs if pair is not None]))
        done = [
            (int(row), pair, None if pair is None else next(flows).flow_kchw[0])
            for row, pair in zip(rows, pairs, strict=True)
        ]
        self.wait_s += decoded - began
        self.flow_s += time.perf_counter() - decoded
        return done

    def _fixed_point(self, flow_chw: NDArray[np.float32]) -> tuple[NDArray[np.int16], float] | None:
        """The flow as a shard would give it back; None for what extraction would not train on."""
        if not np.isfinite(flow_chw).all() or channel_std_px(flow_chw).min() < self.settings.noise_floor_px:
            return None
        try:
            quantum_px = 2.0 ** pair_exponent(flow_chw)
        except FlowRangeError:
            return None
        return np.rint(flow_chw / np.float32(quantum_px)).astype(np.int16), quantum_px

    def __enter__(self) -> OnlinePairs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for decoder in self._decoders:
            decoder.close()

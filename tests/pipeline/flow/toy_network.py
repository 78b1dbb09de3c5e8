"""A network that is nothing like RAFT: the flow of a pair is the difference of the frames' mean colours, everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.flow.batching import PairEstimator, PairFlow
from pipeline.flow.estimator import EstimatorOptions
from pipeline.flow.options import as_count, check_names
from shards.schema import Statement


class ToyNetwork:
    """dx: difference of mean red, dy: of mean green. Notes what it was given; runs out of memory above `holds` pairs."""

    device = torch.device("cpu")

    def __init__(self, holds: int = 1000, error: Exception | None = None, bytes_per_pair: int = 1) -> None:
        self.holds, self.bytes_per_pair = holds, bytes_per_pair
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.tried: list[int] = []
        self.frames: list[int] = []

    def pair_bytes(self, rows: int, columns: int) -> int:
        return self.bytes_per_pair * rows * columns

    def run(self, frames_fhwc: NDArray[np.uint8], pairs: Sequence[tuple[int, ...]]) -> PairFlow:
        self.tried.append(len(pairs))
        self.frames.append(len(frames_fhwc))
        if len(pairs) > self.holds:
            raise self.error
        mean_f3 = frames_fhwc.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
        shift_p2 = np.stack([mean_f3[b, :2] - mean_f3[a, :2] for a, b in pairs])
        rows, columns = frames_fhwc.shape[1:3]
        flow_p2hw = np.broadcast_to(shift_p2[..., None, None], (len(pairs), 2, rows, columns))
        return PairFlow(flow_p2hw, np.full((len(pairs), rows, columns), 0.5, np.float32))


@dataclass(frozen=True)
class ToyChoice:
    """batch_pairs: pairs per run."""

    batch_pairs: int
    name = "toy"

    def statement(self) -> Statement:
        return {"weights": None}

    def build(self) -> PairEstimator:
        return PairEstimator(self.name, ToyNetwork(holds=2), self.batch_pairs)


def choose(name: str, options: EstimatorOptions, image_size: int) -> ToyChoice:
    check_names("toy", options.extra, ("batch_pairs",))
    return ToyChoice(as_count("batch_pairs", options.extra.get("batch_pairs", "8")))

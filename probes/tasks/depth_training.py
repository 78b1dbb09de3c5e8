"""What depth heads are trained on: pictures at the size of the input, as features, with what the sensor measured.

Pairs of `data/rgbd.py` come in; batches in a drawn order go out, read from disk as they are asked for. Features of all pictures
are kept where they fit into memory (`sources/frozen.py`); the depth at the input's size is kept with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

from probes.data import rgbd
from probes.data.batching import BatchLimit, shuffled_batches
from probes.data.images import batch_of
from probes.sources.features import Features, Source
from probes.sources.frozen import FrozenFeatures
from probes.tasks.depth_pictures import Floats

READERS = 4
"""Threads that decode the pictures of a batch."""
CPU = torch.device("cpu")
Batch = tuple[Iterator[tuple[Source, Features]], Tensor]
"""The features of every source, and depth in metres [b, 1, h, w]."""


class RunningMean:
    """The mean depth of what was trained on."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, values: Tensor) -> None:
        self.total += float(values.double().sum())
        self.count += values.numel()

    @property
    def value(self) -> float:
        return self.total / max(self.count, 1)


class TrainingPictures:
    """measured: the sensor's square of a pair in metres, 0 where it counts for nothing."""

    def __init__(
        self,
        sources: Sequence[Source],
        pairs: Sequence[rgbd.Pair],
        measured: Callable[[rgbd.Pair], Floats],
        size_hw: tuple[int, int],
        device: torch.device,
        memory_bytes: int,
        limit: BatchLimit,
    ) -> None:
        self.pairs, self.measured, self.size_hw, self.device = pairs, measured, size_hw, device
        self.mean_depth = RunningMean()
        self._truth: dict[int, Tensor] = {}
        self._readers = ThreadPoolExecutor(READERS)
        self._frozen = FrozenFeatures(sources, self._pictures, len(pairs), size_hw, device, memory_bytes, limit)

    def batches(self, size: int, iterations: int, seed: int) -> Iterator[Batch]:
        """Batches in which nothing was measured teach nothing and are passed on too."""
        for indices in shuffled_batches(len(self.pairs), size, iterations, seed):
            truth = torch.cat(self._read(self._depth, indices))
            self.mean_depth.add(truth[truth > 0])
            yield self._frozen.together(indices), truth.to(self.device)

    def _read(self, one: Callable[[int], Tensor], indices: Sequence[int]) -> list[Tensor]:
        return list(self._readers.map(one, indices))

    def _pictures(self, indices: Sequence[int]) -> Tensor:
        """uint8 [b, h, w, 3]."""
        found = self._read(lambda index: batch_of([self.pairs[index].image()], self.size_hw, CPU), indices)
        return torch.cat(found).to(self.device)

    def _depth(self, index: int) -> Tensor:
        """[1, 1, h, w] at the input's size."""
        if index in self._truth:
            return self._truth[index]
        depth = torch.from_numpy(self.measured(self.pairs[index]))[None, None]
        # The depth at each cell's centre: a mean would invent depths between an object and what is behind it.
        found = F.interpolate(depth, size=self.size_hw, mode="nearest-exact")
        if self._frozen.kept:
            self._truth[index] = found
        return found

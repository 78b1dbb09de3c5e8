"""Features of the pictures of a whole data set, of all sources of one encoder: kept where all fit into memory, else made anew.

Numbers of pictures come in, their features go out part by part, as many pictures at once as go through the network. Probes that
train a head see every picture many times: keeping saves them the network for all times but one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from probes.data.batching import BatchLimit, batches
from probes.sources.features import Features, Source, features_of

Load = Callable[[Sequence[int]], Tensor]
"""Numbers of pictures → uint8 [b, h, w, 3] on the encoder's device."""


class FrozenFeatures:
    """load: the pictures by number, of one size. memory_bytes: what kept features may take; 0 keeps none."""

    def __init__(
        self,
        sources: Sequence[Source],
        load: Load,
        pictures: int,
        size_hw: tuple[int, int],
        device: torch.device,
        memory_bytes: int,
        limit: BatchLimit,
    ) -> None:
        self.sources, self.load, self.pictures = sources, load, pictures
        self.per_batch = limit.pictures(size_hw, device)
        self._kept: dict[int, dict[str, Features]] = {}
        if memory_bytes and limit.keeps(self._bytes_of_one() * pictures, memory_bytes):
            self._kept = self._all()

    @property
    def kept(self) -> bool:
        return bool(self._kept)

    def of(self, indices: Sequence[int]) -> Iterator[tuple[range, Source, Features]]:
        """The features of some pictures, part by part and source by source, with the places of the part in `indices`.

        Raises
        ------
        ValueError: a feature is not finite.
        """
        for places in batches(0, len(indices), self.per_batch):
            part = [indices[place] for place in places]
            for source, features in self._features(part):
                features.require_finite()
                yield places, source, features

    def together(self, indices: Sequence[int]) -> Iterator[tuple[Source, Features]]:
        """The features of some pictures, source by source, in one piece. Those of all sources are held where there are parts."""
        if len(indices) <= self.per_batch:
            yield from ((source, features) for _, source, features in self.of(indices))
            return
        parts: dict[str, list[Features]] = {source.name: [] for source in self.sources}
        for _, source, features in self.of(indices):
            parts[source.name].append(features)
        for source in self.sources:
            yield source, _joined(parts.pop(source.name))

    def _bytes_of_one(self) -> int:
        pairs = (features for _, _, features in self.of(range(1)))
        maps = (one for features in pairs for one in (features.low_bdgf, features.high_bkhw) if one is not None)
        return sum(one.nbytes for one in maps)

    def _all(self) -> dict[int, dict[str, Features]]:
        kept: dict[int, dict[str, Features]] = {index: {} for index in range(self.pictures)}
        for part, source, features in self.of(range(self.pictures)):
            for place, index in enumerate(part):
                # A view of the batch would be fine too: every picture of it is kept.
                kept[index][source.name] = features.picture(place)
        return kept

    def _features(self, part: Sequence[int]) -> Iterator[tuple[Source, Features]]:
        if not self._kept:
            yield from features_of(self.sources, self.load(part))
            return
        for source in self.sources:
            yield source, _joined([self._kept[index][source.name] for index in part])


def _joined(parts: Sequence[Features]) -> Features:
    low = torch.cat([one.low_bdgf for one in parts])
    highs = [one.high_bkhw for one in parts if one.high_bkhw is not None]
    return Features(low, torch.cat(highs) if highs else None, parts[0].dense_alone)

"""How much patch lattice each source shows: a line per decoded source among what a report says about its run.

Sources come in and go out unchanged but for a counter on their decoder, which looks at the first pictures that a task sends
through (`trainer.lattice` has the formula); lines go to the results' `about`, which shapes no score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from probes.sources.features import Encoding, Features, Source
from probes.sources.table import title_of
from probes.task import Scalar
from trainer import LatticeSums

PICTURES = 16
"""So many pictures per source are looked at: the share hardly changes with more, and a large map takes a moment."""
LINE = "patch lattice, "


class LatticeMeter:
    """Counts over the sources of one task."""

    def __init__(self) -> None:
        self._sums: dict[str, LatticeSums] = {}
        self._seen: dict[str, int] = {}

    def watched(self, sources: Sequence[Source]) -> list[Source]:
        """The same sources; those with a dense map are measured as they decode."""
        return [self._watched(source) for source in sources]

    def lines(self, stored: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Share of within-patch variance by source, over what stored results already say where nothing was decoded now."""
        kept = {name: value for name, value in stored.items() if name.startswith(LINE)}
        found = {
            f"{LINE}{title_of(name)}": f"{100 * sums.share():.1f} % of the variance within patches ({self._seen[name]} pictures)"
            for name, sums in self._sums.items()
        }
        return {**kept, **found}

    def _watched(self, source: Source) -> Source:
        def decode(encoding: Encoding) -> Features:
            features = source.decode(encoding)
            self._look(source.name, encoding, features)
            return features

        return replace(source, decode=decode)

    def _look(self, name: str, encoding: Encoding, features: Features) -> None:
        left = PICTURES - self._seen.get(name, 0)
        if features.high_bkhw is None or left <= 0:
            return
        patch = encoding.size_hw[0] // features.low_bdgf.shape[-2]
        looked_at = features.high_bkhw[:left]
        self._sums.setdefault(name, LatticeSums(patch)).add(looked_at)
        self._seen[name] = self._seen.get(name, 0) + len(looked_at)

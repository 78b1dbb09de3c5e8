"""What the steps since the last look gave: numbers that stay on the device until somebody needs them.

Every optimiser step leaves its losses and gradient norm on the device (`trainer.update.Update`), so that the host never waits
for it. `Tally.read` fetches those of all steps since the last reading at once, at log, checkpoint, picture and stop steps, and
only there is it noticed that one of them is not finite; the samples of every unread step are kept so that the error names the
right ones. No checkpoint is written without reading first. Out go numbers for `trainer.run_log`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from common.command import PlainError
from trainer.distributed import Ranks
from trainer.order import Ints
from trainer.update import Update

MOST_UNREAD = 1000  # steps after which a reading is due in any case: it bounds how late a NaN is noticed
SHOWN_KEYS = 16


class NonFiniteLoss(PlainError):
    """The loss or its gradient is NaN or infinite; the last checkpoint is from before."""


class Tally:
    """Steps whose numbers have not been read yet. keys: of every row of the index, to name samples."""

    def __init__(self, keys: Sequence[str], ranks: Ranks) -> None:
        self.keys, self.ranks = keys, ranks
        self._names: tuple[str, ...] = ()
        self._values: list[Tensor] = []
        self._samples: list[tuple[int, Ints]] = []

    def __len__(self) -> int:
        return len(self._values)

    @property
    def full(self) -> bool:
        return len(self) >= MOST_UNREAD

    def add(self, step: int, samples: Ints, update: Update) -> None:
        """Step `step` (from 1) saw these rows of the index. Does not wait for the device."""
        assert update.names == self._names or not self._values, (update.names, self._names)
        self._names = update.names
        self._values.append(update.values)
        self._samples.append((step, samples))

    def read(self) -> list[dict[str, float]]:
        """The numbers of every step added since the last reading, in order, averaged over the ranks; waits for the device once.

        Raises NonFiniteLoss, on all ranks, for the first step that has one which is not finite.
        """
        if not self._values:
            return []
        values = torch.stack(self._values)
        self.ranks.average([values])
        read = [dict(zip(self._names, row, strict=True)) for row in values.tolist()]
        for numbers, (step, samples) in zip(read, self._samples, strict=True):
            if not all(math.isfinite(value) for value in numbers.values()):
                raise self._not_finite(step, samples, numbers)
        self._values, self._samples = [], []
        return read

    def _not_finite(self, step: int, samples: Ints, numbers: dict[str, float]) -> NonFiniteLoss:
        keys = [self.keys[i] for share in self.ranks.gather(samples.tolist()) for i in share]
        shown = ", ".join(keys[:SHOWN_KEYS])
        shown += f", and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
        values = ", ".join(f"{name.replace('_', ' ')} = {value:g}" for name, value in numbers.items())
        noticed = f" (noticed after step {self._samples[-1][0]})" if self._samples[-1][0] != step else ""
        return NonFiniteLoss(
            f"step {step}: {values}{noticed}; stopped without saving, the last checkpoint is intact. "
            f"Samples of the step: {shown}"
        )

"""The teacher: an exponential moving average of the student decoder, with a decay that grows with age.

Called once after every optimiser step. Call n = 1 copies the student; afterwards every fifth call (n - 1 divisible
by 5) moves the teacher by teacher <- d * teacher + (1 - d) * student with d = min(0.999, 1 - (n - 1)^(-2/3)); all other
calls leave it alone. Early on the teacher follows within tens of steps, from n - 1 = 31,623 on it averages thousands.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def decay_at(call: int, *, max_decay: float = 0.999, power: float = 2 / 3) -> float:
    """Decay that call number `call` (from 1) would use; 0 means a plain copy."""
    age = call - 1
    return 0.0 if age <= 0 else min(max_decay, 1 - age**-power)


class Teacher:
    """Holds the averaged decoder (`.decoder`, eval mode, no gradients) and the number of updates so far (`.calls`)."""

    def __init__(self, student: nn.Module, *, max_decay: float = 0.999, every: int = 5) -> None:
        self.decoder = copy.deepcopy(student).eval().requires_grad_(False)
        self.max_decay = max_decay
        self.every = every
        self.calls = 0
        self.last_decay = 0.0

    @torch.no_grad()
    def update(self, student: nn.Module) -> float | None:
        """Follow the student after an optimiser step; returns the decay used, None where this call changes nothing."""
        self.calls += 1
        if (self.calls - 1) % self.every and self.calls > 1:
            return None
        decay = decay_at(self.calls, max_decay=self.max_decay)
        mine: list[Tensor] = list(self.decoder.parameters())
        theirs: list[Tensor] = list(student.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - decay)  # a few kernels for all of them; the same bits as one by one
        self.last_decay = decay
        return decay

    def state_dict(self) -> dict[str, Tensor]:
        """Flat tensors: the averaged decoder under `ema_model.`, the call count under `step`."""
        state = {f"ema_model.{key}": value for key, value in self.decoder.state_dict().items()}
        return state | {"step": torch.tensor(self.calls), "initted": torch.tensor(self.calls > 0)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()`'s tensors; any missing or extra weight raises RuntimeError naming it."""
        prefix = "ema_model."
        weights = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        self.decoder.load_state_dict(weights, strict=True)
        self.calls = int(state["step"])
        self.last_decay = decay_at(self.calls - (self.calls - 1) % self.every, max_decay=self.max_decay)

"""The learning rate of every step: a pure function of how many steps are done, so that a resumed run needs no state for it.

With w warm-up steps, S steps in all, n done before this one and lr the set rate:
    n < w               lr (n + 1) / w                                  linear from lr / w; the last warm-up step has lr itself
    else, "constant"    lr                                              the paper's
    else, "cosine"      lr (1 + cos(pi (n - w) / (S - w))) / 2          from lr towards 0 (Loshchilov and Hutter, SGDR, 2017)
"""

from __future__ import annotations

import math

from trainer.config_sections import TrainConfig


def learning_rate(done: int, settings: TrainConfig) -> float:
    """Rate of the step that follows `done` steps."""
    warmup = settings.warmup_steps
    if done < warmup:
        return settings.lr * (done + 1) / warmup
    if settings.schedule == "constant":
        return settings.lr
    share = min(1.0, (done - warmup) / (settings.steps - warmup))
    return settings.lr * (1 + math.cos(math.pi * share)) / 2

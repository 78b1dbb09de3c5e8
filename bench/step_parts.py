"""Where the time of a training step goes, and how near the device it comes to what the device can do.

A learner and endless views come in (`bench/train_step.py`); every part of `trainer.update` is run on its own, in its order, between
two marks: CUDA events, so that nothing waits in between, or a clock on a CPU (`clock`). Out come milliseconds per part, the step's
floating-point operations as PyTorch counts them, and the rate of a large matrix product on the same device in the same precision.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch.utils.flop_counter import FlopCounterMode

from trainer.learner import Learner
from trainer.update import FlowDistillation, distill
from trainer.views import Views

PARTS = (
    "views",
    "encoder",
    "teacher",
    "student_forward",
    "ridge_and_loss",
    "backward",
    "gradient_norm",
    "optimiser",
    "ema",
)


@dataclass
class Marks:
    """Milliseconds by part, over all steps."""

    device: torch.device
    ms: dict[str, float] = field(default_factory=dict)
    _events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = field(default_factory=list)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if self.device.type == "cuda":
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            yield
            ended.record()
            self._events.append((name, began, ended))
            return
        now = clock(self.device)
        started = now()
        yield
        self.ms[name] = self.ms.get(name, 0.0) + 1000 * (now() - started)

    def read(self) -> dict[str, float]:
        """So far; waits for the device."""
        wait_for(self.device)
        for name, began, ended in self._events:
            self.ms[name] = self.ms.get(name, 0.0) + began.elapsed_time(ended)
        self._events.clear()
        return self.ms


def clock(device: torch.device) -> Callable[[], float]:
    """Seconds: on one CPU thread those of CPU time, which other load on the machine hardly moves; else the wall clock's."""
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def wait_for(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def step_in_parts(learner: Learner, views: Iterator[Views], marks: Marks) -> None:
    """One step of `trainer.update.update` with FlowFeat's objective, unaccumulated, part by part."""
    objective, config = learner.objective, learner.config
    assert isinstance(objective, FlowDistillation) and config.train.accumulate == 1
    with marks.part("views"):
        cut = next(views)
    assert cut.u1 is not None and cut.u2 is not None
    half, size = len(cut.image1), (cut.image1.shape[-2], cut.image1.shape[-1])
    learner.optimiser.zero_grad(set_to_none=True)
    with torch.autocast(learner.device.type, torch.bfloat16, enabled=config.train.precision == "bf16"):
        with torch.no_grad():
            with marks.part("encoder"):
                maps = objective._encode(torch.cat((cut.image1, cut.image2))).maps_bdhw
            with marks.part("teacher"):
                taught = objective._teach(tuple(m[:half] for m in maps), size)
        with marks.part("student_forward"):
            studied = objective._study(tuple(m[half:] for m in maps), size)
    with marks.part("ridge_and_loss"):
        found = distill(taught, studied, cut.u1, cut.u2, config.loss)
    with marks.part("backward"):
        found.total.backward()
    with marks.part("gradient_norm"):
        torch.nn.utils.get_total_norm([p.grad for p in learner.parameters if p.grad is not None])
    with marks.part("optimiser"):
        learner.optimiser.step()
    with marks.part("ema"):
        objective.after_step()


def parts_ms(learner: Learner, views: Iterator[Views], steps: int, warmup: int) -> dict[str, float]:
    """Mean milliseconds per step of every part, over at least `steps` steps: the teacher moves equally often in all of them."""
    every = learner.config.teacher.every
    steps = -(-steps // every) * every
    for _ in range(warmup):
        step_in_parts(learner, views, Marks(learner.device))
    marks = Marks(learner.device)
    for _ in range(steps):
        step_in_parts(learner, views, marks)
    found = marks.read()
    return {name: found[name] / steps for name in PARTS}


def flop_per_sample(learner: Learner, views: Iterator[Views]) -> float:
    """Floating-point operations of one step per sample of its batch (a multiplication and an addition are two)."""
    with FlopCounterMode(display=False) as counter:
        learner.learn(next(views))
    return counter.get_total_flops() / learner.config.train.batch_size


def matmul_flop_per_s(device: torch.device, precision: str, side: int = 0, seconds: float = 1.0) -> float:
    """Rate of a square matrix product, best of several, in the precision of a training ("fp32", "tf32", "bf16")."""
    side = side or (8192 if device.type == "cuda" else 1024)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    now = clock(device)
    best, until = float("inf"), now() + seconds
    try:
        while now() < until:
            wait_for(device)
            started = now()
            a @ b
            wait_for(device)
            best = min(best, now() - started)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * side**3 / best

"""What a network costs: multiply-accumulates, the memory of its tensors, pictures per second. A callable comes in, figures go out.

MACs are torch's count of FLOPs by two: matrix products, convolutions and attention, nothing else, as papers count ("FLOPs" of
FlowFeat's Table 7 are these). Peak memory is the weights and the most that tensors took at once, on a CPU by following every
tensor from its making to its end; what a kernel takes inside itself is not seen there. On CUDA the allocator keeps count.
"""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

MOST_RUNS = 10
ENOUGH_S = 1.0
"""A rate is the median over runs that take this long together."""


def _attention(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: Any, **__: Any) -> int:
    flops: int = sdpa_flop_count(query, key, value)
    return flops


EXTRA = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
"""Attention on a CPU, which torch's counter leaves out."""


def macs(run: Callable[[], object]) -> int:
    """Multiply-accumulates of one call."""
    with FlopCounterMode(display=False, custom_mapping=EXTRA) as counter:
        run()
    return int(counter.get_total_flops()) // 2


class _Following(TorchDispatchMode):
    """Bytes of the tensors that were made inside it and still live, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {one.untyped_storage().data_ptr() for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor) and one.untyped_storage().data_ptr() not in before:
                self._follow(one.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        place = storage.data_ptr()
        if place in self._known:
            return
        self._known.add(place)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._end, place, size)

    def _end(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.now -= size


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """The most that tensors of one call take at once, without what was there before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _Following() as following:
        kept = run()
        del kept
    return following.peak


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Of one call: the median over up to MOST_RUNS calls, after one that warms up unless that alone takes long."""
    taken: list[float] = []
    started = time.perf_counter()
    while not taken or (len(taken) < MOST_RUNS + 1 and time.perf_counter() - started < ENOUGH_S):
        before = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - before)
    return statistics.median(taken[1:] or taken)

"""Most memory that a call takes at once: the measurement behind the bound in `pipeline/flow/networks/memory.py`.

On a CPU torch offers no such figure, so every operator's result is followed by a weak reference. That needs two of torch's
private modules, which is why it stays in bench/.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of all storages that operators made and that are still referenced."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[StorageWeakRef, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                self.live.setdefault(StorageWeakRef(storage), storage.nbytes())
        self.live = {reference: size for reference, size in self.live.items() if not reference.expired()}
        self.peak = max(self.peak, sum(self.live.values()))
        return out


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Most bytes that tensors made by `run` held at once. On CUDA this is the allocator's own figure.

    On a CPU workspaces inside an operator are not seen.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return int(torch.cuda.max_memory_allocated(device) - before)
    with _LiveTensors() as tracked:
        run()
    return tracked.peak

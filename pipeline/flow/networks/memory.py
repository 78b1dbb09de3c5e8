"""How much memory a batch of pairs takes: measured, and bounded before anything is allocated.

The bound keeps a batch below a budget on machines where running out is not an exception but
the end of the process (a CPU whose kernel overcommits). Where it is an exception, the
estimator halves the batch on top of this.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.flow.networks.upsample import STRIDE

# Bytes per pixel of a frame that one pair adds to the peak beside the correlation volume, in float32: at most 798
# were measured with `peak_bytes` (SEA-RAFT, one neighbour, both directions), the rest is for workspaces.
_BYTES_PER_PIXEL = 900
_CPU_BUDGET_BYTES = 4 << 30
_VOLUME_LEVELS = 1 + 1 / 4 + 1 / 16 + 1 / 64


def pair_bytes(rows: int, columns: int, directions: int = 1) -> int:
    """Upper bound of what one pair of rows×columns frames adds to the peak, in any precision.

    directions: 2 where the way back is computed too. The all-pairs volume grows with the square of the
    area (3.3 MB a direction at 224×224, 223 MB at 432×960); the rest, mostly the encoders' first maps, with the area.
    """
    cells = -(-rows // STRIDE) * -(-columns // STRIDE)
    return int(directions * 4 * cells * cells * _VOLUME_LEVELS + _BYTES_PER_PIXEL * rows * columns)


def budget_bytes(device: torch.device) -> int:
    """What a batch may take: four fifths of what is free on an accelerator; half of it, 4 GiB at most, on a CPU.

    On a CPU other worker processes ask the same question at the same time.
    """
    if device.type == "cuda":
        return int(0.8 * torch.cuda.mem_get_info(device)[0])
    return min(_available_bytes() // 2, _CPU_BUDGET_BYTES)


def _available_bytes() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def pairs_that_fit(rows: int, columns: int, device: torch.device, directions: int = 1) -> int:
    """Pairs of rows×columns frames that the budget holds. Raises ValueError if not even one fits."""
    need, budget = pair_bytes(rows, columns, directions), budget_bytes(device)
    if need > budget:
        raise ValueError(
            f"one pair of {columns}×{rows} px needs about {need / 2**30:.1f} GiB and {budget / 2**30:.1f} GiB may be used "
            f"on {device}; make the frames smaller"
        )
    return budget // need


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

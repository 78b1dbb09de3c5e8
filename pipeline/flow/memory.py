"""How much memory a batch of pairs may take, asked before anything is allocated.

A budget keeps a batch small on machines where running out is not an exception but the end of the process (a CPU whose kernel
overcommits, a container or a batch job with a limit). What a pair needs is the network's own rule; where running out is an
exception, `batching.py` halves the batch on top of this.
"""

from __future__ import annotations

import torch

from common.memory import available_bytes

_CPU_BUDGET_BYTES = 4 << 30


def budget_bytes(device: torch.device) -> int:
    """What a batch may take: four fifths of what is free on an accelerator; half of it, 4 GiB at most, on a CPU.

    On a CPU other worker processes ask the same question at the same time. On CUDA the blocks that torch's allocator keeps
    after an earlier batch are free for the next one, though the driver counts them as taken.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(0.8 * (torch.cuda.mem_get_info(device)[0] + kept))
    return min(available_bytes() // 2, _CPU_BUDGET_BYTES)


def pairs_that_fit(pair_bytes: int, rows: int, columns: int, device: torch.device) -> int:
    """Pairs of rows×columns frames that the budget holds. Raises ValueError if not even one fits."""
    budget = budget_bytes(device)
    if pair_bytes > budget:
        raise ValueError(
            f"one pair of {columns}×{rows} px needs about {pair_bytes / 2**30:.1f} GiB and {budget / 2**30:.1f} GiB may be "
            f"used on {device}; make the frames smaller"
        )
    return budget // pair_bytes

"""The device that a run trains on: which one, with which arithmetic, how many threads."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from common.cores import usable_cores
from common.device import pick_device
from trainer.config import Config
from trainer.distributed import Place


def training_device(config: Config, place: Place) -> torch.device:
    """The device of `train.device`: with several ranks on this machine, the GPU whose number is the local rank.

    ValueError names the setting where there is no such device.
    """
    name = config.train.device
    try:
        device = pick_device(name)
        if device.type == "cpu" or place.count == 1:
            return device
        if device.index is not None:
            raise ValueError(f"{place.count} ranks cannot share one GPU: use cuda or auto")
        return pick_device(f"cuda:{place.local}")
    except ValueError as error:
        raise ValueError(f"train.device = {name!r}: {error}") from error


def set_precision(config: Config, device: torch.device) -> None:
    """Process-wide switches of `train.precision`. TF32 is only ever allowed for convolutions, never for the ridge."""
    precision = config.train.precision
    if device.type != "cuda" and not (precision == "fp32" or (precision == "bf16" and has_bf16())):
        also = " or a processor with bf16 instructions" if precision == "bf16" else ""
        raise ValueError(f"train.precision = {precision!r} needs CUDA{also}; on this {device} use fp32")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = precision != "fp32"


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself (AVX-512 BF16, AMX, Arm BF16), as far as Linux says so."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def cpu_threads(config: Config, place: Place, recorded: int | None) -> int:
    """Threads of torch on the CPU: `train.threads`; where that is 0, those that the run began with (`recorded`), since another
    number rounds otherwise; for a new run what OMP_NUM_THREADS says, else this rank's share of the usable cores.
    """
    if config.train.threads or recorded:
        return config.train.threads or recorded or 1
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    unsaid_by_torchrun = place.local_count > 1 and said == "1"  # torchrun sets it where nobody has
    if said.isdecimal() and int(said) and not unsaid_by_torchrun:
        return int(said)
    return max(1, usable_cores() // place.local_count)

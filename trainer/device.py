"""The device that a run trains on: which one, with which arithmetic, with which memory manners."""

from __future__ import annotations

import ctypes
import sys

import torch

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
    if config.train.precision != "fp32" and device.type != "cuda":
        raise ValueError(f"train.precision = {config.train.precision!r} needs CUDA; on {device} use fp32")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = config.train.precision != "fp32"


def keep_freed_memory() -> None:
    """Have glibc keep large freed blocks instead of handing them back.

    On the CPU a step allocates the same hundreds of megabytes every time, and the system clears returned pages each time.
    What that costs is in bench/results.csv: train_step, system_ms_per_step with and without returning_memory.
    """
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of <malloc.h>
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):
            libc.mallopt(mmap_threshold, 1 << 30)
            libc.mallopt(trim_threshold, (1 << 31) - 1)

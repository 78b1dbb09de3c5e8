"""Which device a network runs on: the same names and the same refusals in every stage."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def device_name(device: torch.device) -> str:
    """What a reader of measured times wants to know: "NVIDIA A40", or the processor and how many threads torch uses of it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []  # another system than Linux
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    return f"{next(iter(named), '') or platform.machine()}, {threads} thread{'' if threads == 1 else 's'}"


def pick_device(name: str) -> torch.device:
    """The device of that name: cpu, cuda, cuda:N, or auto, which is CUDA where there is one.

    Raises ValueError for another name and for a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, colon, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and index.isdecimal())):
        raise ValueError(f"no device is called {name!r}: use auto, cpu, cuda or cuda:0")
    if kind == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= found:
            raise ValueError(f"device {name!r} was asked for, but torch sees {found} CUDA devices: use cpu or auto")
    return torch.device(name)

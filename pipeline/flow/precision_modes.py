"""In which arithmetic a network may run: names as `--precision` takes them, and float32 that is float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def check_precision(precision: str, device: torch.device) -> None:
    """Raises ValueError for an unknown precision, or one that the device does not have."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if precision == "tf32" and device.type != "cuda":
        raise ValueError(f"precision tf32 exists on CUDA devices only, not on {device}; use fp32 or bf16")


@contextmanager
def float32_kernels(tf32_convolutions: bool) -> Iterator[None]:
    """Float32 means float32: TF32 (10 bits of mantissa, on by default in cuDNN) only where it was asked for.

    Matrix products are the correlation and its lookup, which stay exact in every precision.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = False, tf32_convolutions
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before

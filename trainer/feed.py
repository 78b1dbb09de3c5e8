"""Host batches onto the training device, one ahead.

On CUDA the loader's slots are page-locked once, the copy of the next batch runs on its own stream beside the current
step, and a slot is handed back to the workers only after its copy has ended. Pixels travel as stored (uint8, int16);
`trainer.views` makes floats of them on the device.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from trainer.batch import Batch, Slots
from trainer.loader import Loader
from trainer.views import Pixels


class DeviceBatch(NamedTuple):
    """A batch on the device; `host` keeps what the log needs (its arrays of pixels may be overwritten, its rows not)."""

    host: Batch
    pixels: Pixels


def on_device(loader: Loader, device: torch.device, first_step: int = 0) -> Iterator[DeviceBatch]:
    """The loader's batches from `first_step` on, as tensors on `device`. On the CPU they are views into the slot."""
    if device.type != "cuda":
        for batch in loader.batches(first_step):
            yield to_device(batch, device)
        return
    pinned = _pin(loader.slots)
    copies = torch.cuda.Stream(device)
    try:
        ahead: DeviceBatch | None = None
        for batch in loader.batches(first_step):
            with torch.cuda.stream(copies):
                coming = to_device(batch, device)
            if ahead is not None:
                yield ahead
            copies.synchronize()  # long done; the loader may now reuse the slot
            torch.cuda.current_stream(device).wait_stream(copies)
            for tensor in (t for t in coming.pixels if t is not None):
                tensor.record_stream(torch.cuda.current_stream(device))
            ahead = coming
    finally:
        if pinned:
            copies.synchronize()
            torch.cuda.cudart().cudaHostUnregister(_address(loader.slots))


def to_device(batch: Batch, device: torch.device) -> DeviceBatch:
    """One batch as tensors on `device`; on the CPU they are views into the slot."""
    arrays = (batch.images_bhwc, batch.flow_b2hw, batch.quantum_px, batch.neighbours_bhwc, batch.confidence_bhw)
    pixels = Pixels(*(None if a is None else torch.from_numpy(a).to(device, non_blocking=True) for a in arrays))  # type: ignore[arg-type]
    host = replace(batch, sample=batch.sample.copy(), neighbour=batch.neighbour.copy())
    return DeviceBatch(host, pixels)


def _address(slots: Slots) -> int:
    return int(slots.arrays["images_bhwc"].ctypes.data)


def _pin(slots: Slots) -> bool:
    """Page-lock the slots so that copies to the device run beside the computation; False where the system refuses."""
    result = torch.cuda.cudart().cudaHostRegister(_address(slots), len(slots.memory), 0)
    if int(result) != 0:
        print(f"note: the loader's memory could not be page-locked ({result}); copies will be slower", file=sys.stderr)
    return int(result) == 0

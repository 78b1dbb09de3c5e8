"""Host batches onto the training device, one ahead.

On CUDA the loader's slots are page-locked once, the copy of the next batch runs on its own stream beside the current
step, and a slot is handed back to the workers only after its copy has ended. Pixels travel as stored (uint8, int16);
`trainer.views` makes floats of them on the device. The host goes ahead of the device by a few steps at most, so that no more
batches than that lie there.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from trainer.batch import Batch, Slots
from trainer.loader import Loader
from trainer.views import Pixels

STEPS_AHEAD = 2  # steps that may be queued on the device behind the one that it works on


class DeviceBatch(NamedTuple):
    """A batch on the device; `host` keeps what the log needs (its arrays of pixels may be overwritten, its rows not)."""

    host: Batch
    pixels: Pixels


class DataWait:
    """How long the training has waited for data: on the CPU the loader's own time; on CUDA the time that the device had
    nothing to do between the end of one step and the beginning of the next, since there the host waits beside its work."""

    def __init__(self, loader: Loader, device: torch.device) -> None:
        self.loader, self.device = loader, device
        self._gaps: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._s = 0.0

    def add(self, ended: torch.cuda.Event, began: torch.cuda.Event) -> None:
        self._gaps.append((ended, began))

    def seconds(self) -> float:
        """So far. On CUDA to be asked after a step's numbers have been read: then all events lie behind."""
        if self.device.type != "cuda":
            return self.loader.wait_s
        self._s += sum(ended.elapsed_time(began) for ended, began in self._gaps) / 1000
        self._gaps.clear()
        return self._s


def on_device(
    loader: Loader, device: torch.device, first_step: int = 0, waited: DataWait | None = None
) -> Iterator[DeviceBatch]:
    """The loader's batches from `first_step` on, as tensors on `device`. On the CPU they are views into the slot."""
    if device.type != "cuda":
        for batch in loader.batches(first_step):
            yield to_device(batch, device)
        return
    pinned = _pin(loader.slots)
    copies, work = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    try:
        ahead: DeviceBatch | None = None
        queued: deque[torch.cuda.Event] = deque()
        for batch in loader.batches(first_step):
            with torch.cuda.stream(copies):
                coming = to_device(batch, device)
                copied = copies.record_event()
            if ahead is not None:
                began = work.record_event(torch.cuda.Event(enable_timing=True))
                if waited and queued:
                    waited.add(queued[-1], began)
                yield ahead
                queued.append(work.record_event(torch.cuda.Event(enable_timing=True)))
            copied.synchronize()  # long done; the loader may now reuse the slot
            work.wait_event(copied)
            for tensor in (t for t in coming.pixels if t is not None):
                tensor.record_stream(work)
            ahead = coming
            if len(queued) > STEPS_AHEAD:
                queued.popleft().synchronize()  # not the device: only a step that lies so far back
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

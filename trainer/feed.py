"""Host batches onto the training device, one ahead, and from there into two views with their flows.

On CUDA the loader's slots are page-locked once, the copy of the next batch runs on its own stream beside the current
step, and a slot is handed back to the workers only after its copy has ended. Frames travel as uint8 and flow as int16;
they become floats on the device. Out come the networks' inputs and the targets of `trainer.distill`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.distill import crop_theta, sample_view, standardise_flow
from trainer.flowfeat import FlowFeat
from trainer.loader import Batch, Loader, Slots
from trainer.order import Boxes


class DeviceBatch(NamedTuple):
    """A batch on the device; `host` keeps what the log needs (its arrays of pixels may be overwritten, its rows not).

    images_bhwc uint8, flow_b2hw int16 in units of quantum_px float32 [b].
    """

    host: Batch
    images_bhwc: Tensor
    flow_b2hw: Tensor
    quantum_px: Tensor


class Views(NamedTuple):
    """Two crops per frame, normalised [b, 3, h, w], and the standardised flow of each, [b, 2, h, w], all float32."""

    image1: Tensor
    image2: Tensor
    u1: Tensor
    u2: Tensor


def on_device(loader: Loader, device: torch.device, first_step: int = 0) -> Iterator[DeviceBatch]:
    """The loader's batches from `first_step` on, as tensors on `device`. On the CPU they are views into the slot."""
    if device.type != "cuda":
        for batch in loader.batches(first_step):
            yield _moved(batch, device)
        return
    pinned = _pin(loader.slots)
    copies = torch.cuda.Stream(device)
    try:
        ahead: DeviceBatch | None = None
        for batch in loader.batches(first_step):
            with torch.cuda.stream(copies):
                coming = _moved(batch, device)
            if ahead is not None:
                yield ahead
            copies.synchronize()  # long done; the loader may now reuse the slot
            torch.cuda.current_stream(device).wait_stream(copies)
            for tensor in coming[1:]:
                tensor.record_stream(torch.cuda.current_stream(device))
            ahead = coming
    finally:
        if pinned:
            copies.synchronize()
            torch.cuda.cudart().cudaHostUnregister(_address(loader.slots))


def _moved(batch: Batch, device: torch.device) -> DeviceBatch:
    arrays = (batch.images_bhwc, batch.flow_b2hw, batch.quantum_px)
    images, flow, quantum = (torch.from_numpy(a).to(device, non_blocking=True) for a in arrays)
    host = replace(batch, sample=batch.sample.copy(), neighbour=batch.neighbour.copy())
    return DeviceBatch(host, images, flow, quantum)


def _address(slots: Slots) -> int:
    return int(slots.arrays["images_bhwc"].ctypes.data)


def _pin(slots: Slots) -> bool:
    """Page-lock the slots so that copies to the device run beside the computation; False where the system refuses."""
    result = torch.cuda.cudart().cudaHostRegister(_address(slots), len(slots.memory), 0)
    if int(result) != 0:
        print(f"note: the loader's memory could not be page-locked ({result}); copies will be slower", file=sys.stderr)
    return int(result) == 0


def cut_views(
    images_bhwc: Tensor, flow_b2hw: Tensor, quantum_px: Tensor, boxes: Boxes, *, view_size: int, source_size: int
) -> Views:
    """Two views of each frame and the flow of each, cut with the same grids from the standardised flow.

    The frame is first brought to `source_size` (antialiased) where it is stored larger: views are sampled without
    antialiasing, so the source should be about twice their size. `boxes` are in pixels of that source.
    """
    frames = FlowFeat.normalise(images_bhwc)
    if frames.shape[-1] != source_size:
        frames = F.interpolate(frames, size=(source_size, source_size), mode="bilinear", antialias=True)
    flow = standardise_flow(flow_b2hw.float() * quantum_px.view(-1, 1, 1, 1))
    thetas = [_theta(boxes, view, source_size, frames.device) for view in (0, 1)]
    size = (view_size, view_size)
    image1, image2 = (sample_view(frames, theta, size) for theta in thetas)
    u1, u2 = (sample_view(flow, theta, size) for theta in thetas)
    return Views(image1, image2, u1, u2)


def _theta(boxes: Boxes, view: int, source_size: int, device: torch.device) -> Tensor:
    scale, top, left = (torch.from_numpy(np.ascontiguousarray(values[:, view])) for values in boxes)
    return crop_theta(scale, top, left, (source_size, source_size)).to(device, non_blocking=True)

"""RGB images as the networks take them, and back: 0..255 to ImageNet-normalised floats and the reverse."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(images_bhwc: Tensor) -> Tensor:
    """[B, H, W, 3] uint8 RGB -> [B, 3, H, W] float32: v/255, minus ImageNet's mean, over its standard deviation."""
    if not isinstance(images_bhwc, Tensor):
        raise ValueError(
            f"normalise takes a torch tensor, not a {type(images_bhwc).__module__}.{type(images_bhwc).__name__}: "
            "for a numpy array pass torch.from_numpy(images)"
        )
    if images_bhwc.dtype != torch.uint8 or images_bhwc.ndim != 4 or images_bhwc.shape[-1] != 3:
        raise ValueError(f"normalise takes uint8 [B, H, W, 3], not {images_bhwc.dtype} {list(images_bhwc.shape)}")
    pixels = images_bhwc.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return _standardise_(pixels.div_(255))


def normalise_unit(images_bchw: Tensor) -> Tensor:
    """[B, 3, H, W] floats from 0 to 1 -> the same normalised, float32; `normalise` does it to 0..255."""
    return _standardise_(images_bchw.to(torch.float32, memory_format=torch.contiguous_format, copy=True))


def _standardise_(pixels_bchw: Tensor) -> Tensor:
    mean, std = _constants(pixels_bchw.device)
    return pixels_bchw.sub_(mean).div_(std)


@lru_cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation as [3, 1, 1] on the device; made once, because sending them there makes the host wait for it."""
    with torch.inference_mode(False):
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std


def denormalise(image_chw: Tensor) -> Tensor:
    """A normalised image [3, h, w] back as uint8 [h, w, 3] on the CPU."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    rgb = (image_chw.detach().float().cpu() * std + mean).clamp(0, 1) * 255
    return (rgb + 0.5).to(torch.uint8).permute(1, 2, 0).contiguous()

"""A module that is not ours as the frozen encoder: images normalised its way in, its maps out, held to what was promised.

The module comes from `trainer.encoder_reference`; `trainer.model` treats the result like its own ViT. State-dict keys are
`encoder.module.*`, beside the official `decoder.*`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from trainer.encoder_protocol import Encoded, Triple
from trainer.images import IMAGENET_MEAN, IMAGENET_STD

UNKNOWN_LICENCE = "unknown"


@dataclass(frozen=True)
class OutsideSpec:
    """What is recorded of an encoder that is not ours: how it is named (`trainer.encoder_reference`), its width D and patch, and the
    decoder's shapes above it, as in `trainer.encoder_table.EncoderSpec`. licence: of its weights."""

    reference: str
    dim: int
    patch: int
    widths: tuple[int, int, int, int]
    feature_dim: int = 128
    licence: str = UNKNOWN_LICENCE


class OutsideEncoder(nn.Module):
    """Wraps `module`, a `trainer.encoder_protocol.FrozenEncoder`, without gradients and always in eval mode.

    Takes ImageNet-normalised images like every encoder here, and hands them on normalised as the module wants them.
    Raises ValueError naming `reference` and what the module lacks.
    """

    mean, std = IMAGENET_MEAN, IMAGENET_STD
    scale_c11: Tensor
    shift_c11: Tensor

    def __init__(self, reference: str, module: Any) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise ValueError(f"encoder {reference} made a {type(module).__name__}, not a torch.nn.Module")
        self.patch, self.width = (_positive(reference, module, name) for name in ("patch", "width"))
        mean, std = (_triple(reference, module, name) for name in ("mean", "std"))
        if min(std) <= 0:
            raise ValueError(f"encoder {reference}: std = {std} must be positive")
        self.reference = reference
        self.module = module.eval().requires_grad_(False)
        self.licence = str(getattr(module, "licence", UNKNOWN_LICENCE))
        self.is_imagenet = (mean, std) == (IMAGENET_MEAN, IMAGENET_STD)
        between = [(m, s, m2, s2) for m, s, m2, s2 in zip(IMAGENET_MEAN, IMAGENET_STD, mean, std, strict=True)]
        scale, shift = [s / s2 for _, s, _, s2 in between], [(m - m2) / s2 for m, _, m2, s2 in between]
        self.register_buffer("scale_c11", torch.tensor(scale).view(3, 1, 1), persistent=False)
        self.register_buffer("shift_c11", torch.tensor(shift).view(3, 1, 1), persistent=False)

    @property
    def spec(self) -> OutsideSpec:
        """The decoder's four levels are as wide as the encoder, as in every official variant but MAE's."""
        return OutsideSpec(self.reference, self.width, self.patch, (self.width,) * 4, licence=self.licence)

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode: frozen means that dropout and running norms stand still, too."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images_bchw: Tensor) -> Encoded:
        """[B, 3, H, W] float, ImageNet-normalised. Raises ValueError where the module gives other shapes than promised."""
        wanted = images_bchw if self.is_imagenet else images_bchw * self.scale_c11 + self.shift_c11
        return self._checked(self.module(wanted), images_bchw)

    def _checked(self, given: Any, images_bchw: Tensor) -> Encoded:
        b, _, h, w = images_bchw.shape
        shape = (b, self.width, h // self.patch, w // self.patch)
        if not (isinstance(given, tuple | list) and len(given) == 2 and isinstance(given[1], tuple | list)):
            raise ValueError(f"encoder {self.reference} must give (low, (four maps)), not {_told(given)}")
        low, maps = given
        if len(maps) != 4:
            raise ValueError(f"encoder {self.reference} gave {len(maps)} maps, but the decoder takes four")
        for name, one in (("low", low), *((f"map {number}", one) for number, one in enumerate(maps, start=1))):
            if not isinstance(one, Tensor) or tuple(one.shape) != shape:
                raise ValueError(
                    f"encoder {self.reference} gave {name} as {_told(one)}; for images of {h}x{w} (height x width) its patch "
                    f"{self.patch} and width {self.width} promise {list(shape)}"
                )
        return Encoded(low, tuple(maps))


def _told(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(list(value.shape))
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _positive(reference: str, module: nn.Module, name: str) -> int:
    value = getattr(module, name, None)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"encoder {reference}: {name} = {value!r} must be a positive whole number")
    return value


def _triple(reference: str, module: nn.Module, name: str) -> Triple:
    value = getattr(module, name, None)
    if not isinstance(value, tuple | list) or len(value) != 3 or not all(isinstance(v, int | float) for v in value):
        raise ValueError(f"encoder {reference}: {name} = {value!r} must be three numbers, one per channel")
    red, green, blue = (float(v) for v in value)
    return red, green, blue

"""The network: a frozen encoder and a trained decoder as one module. Normalised images in, two feature maps out.

A frozen encoder (`trainer.encoder`, or a module of somebody else's in `trainer.outside_encoder`) gives the low-resolution map,
a DPT decoder on its hooked blocks (`trainer.decoder`) the
dense one. State-dict keys are those of the published FlowFeat files: `encoder.*` and `decoder.*`. Files are read and
written above (`trainer.model_file`), weights are found above that (`trainer.flowfeat`).

Shape legend: B images, D encoder width, p patch side, C feature channels, H x W pixels.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from trainer.decoder import DPTDecoder
from trainer.encoder import FrozenViT
from trainer.encoder_protocol import Encoded
from trainer.encoder_reference import build_outside
from trainer.encoder_table import EncoderSpec
from trainer.outside_encoder import OutsideEncoder, OutsideSpec


class EncoderDecoder(nn.Module):
    """Frozen encoder + DPT decoder, with whatever weights they are given; `trainer.flowfeat.FlowFeat` knows where to get some.

    Attributes: variant (name), spec (EncoderSpec or OutsideSpec), patch_size, encoder_dim (D), feature_dim (C, 128 officially),
    size_multiple (2 * patch: what H and W must be multiples of), encoder_source (where the frozen weights came from).
    """

    def __init__(
        self, spec: EncoderSpec | OutsideSpec, variant: str = "custom", encoder: OutsideEncoder | None = None
    ) -> None:
        """encoder: the one that `spec` describes, where it is not one of our own ViTs and has been built already."""
        super().__init__()
        self.variant = variant
        self.spec = spec
        self.encoder: FrozenViT | OutsideEncoder = (
            FrozenViT(spec) if isinstance(spec, EncoderSpec) else encoder or build_outside(spec.reference)
        )
        self.decoder = DPTDecoder(spec.dim, spec.widths, spec.feature_dim)
        self.patch_size = spec.patch
        self.encoder_dim = spec.dim
        self.feature_dim = spec.feature_dim
        self.size_multiple = 2 * spec.patch
        self.encoder_source = "unknown"

    @classmethod
    def blank(
        cls, spec: EncoderSpec | OutsideSpec, variant: str = "custom", encoder: OutsideEncoder | None = None
    ) -> Self:
        """A model whose weights are not set yet: no time and no random numbers go into values about to be overwritten.

        An encoder that is not ours is built with its weights all the same, as its code may not stand being built without.
        """
        if isinstance(spec, OutsideSpec):
            encoder = encoder or build_outside(spec.reference)
        with torch.device("meta"):
            model = cls(spec, variant, encoder)
        (model if encoder is None else model.decoder).to_empty(device="cpu")
        return model

    @torch.no_grad()
    def forward(self, images_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W] float, ImageNet-normalised -> (low [B, D, H/p, W/p], high [B, C, H, W]), without gradients.

        H and W must be multiples of `size_multiple`; ValueError names the nearest valid sizes.
        """
        return self.features_with_grad(images_bchw)

    def features_with_grad(self, images_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, with gradients through the decoder (never through the encoder)."""
        encoded = self.encode(images_bchw)
        return encoded.low_bdhw, self.decode(encoded.maps_bdhw, (images_bchw.shape[-2], images_bchw.shape[-1]))

    @torch.no_grad()
    def encode(self, images_bchw: Tensor) -> Encoded:
        """The frozen half: images as in `forward` -> Encoded. Never has gradients."""
        self.check_images(images_bchw)
        encoded: Encoded = self.encoder(images_bchw)
        return encoded

    def decode(self, maps_bdhw: tuple[Tensor, ...], size_hw: tuple[int, int]) -> Tensor:
        """The trained half: the four maps of `encode` -> features [B, C, H, W]."""
        dense: Tensor = self.decoder(maps_bdhw, size_hw)
        return dense

    @property
    def encoder_licence(self) -> str:
        """Of the encoder's weights, which every file of this model holds."""
        return "none (random weights)" if self.encoder_source.startswith("random") else self.spec.licence

    def check_images(self, images_bchw: Tensor) -> None:
        """Raise ValueError unless images can be encoded: [B, 3, H, W], floating point, sides multiples of `size_multiple`."""
        if images_bchw.ndim != 4 or images_bchw.shape[1] != 3:
            raise ValueError(f"images must be [B, 3, H, W], not {list(images_bchw.shape)}")
        if not images_bchw.is_floating_point():
            raise ValueError(f"images must be normalised floats, not {images_bchw.dtype}; see FlowFeat.normalise")
        h, w = int(images_bchw.shape[-2]), int(images_bchw.shape[-1])
        if h % self.size_multiple or w % self.size_multiple or not h or not w:
            raise ValueError(
                f"images are {h}x{w} (height x width), but {self.variant} takes multiples of {self.size_multiple} "
                f"(twice its patch); nearest: {self._nearest(h, up=False)}x{self._nearest(w, up=False)} or "
                f"{self._nearest(h, up=True)}x{self._nearest(w, up=True)}: resize, crop or pad"
            )

    def _nearest(self, side_px: int, *, up: bool) -> int:
        step = self.size_multiple
        return max(step, (side_px + step - 1) // step * step if up else side_px // step * step)

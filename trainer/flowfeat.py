"""FlowFeat, the model other projects import: normalised images in, two feature maps out.

A frozen encoder (`trainer.encoder`) gives the low-resolution map, a DPT decoder on its hooked blocks (`trainer.decoder`)
the dense one. Weights come from a model file (`from_pretrained`), from a published encoder file, a download or a seed
(`create`). State-dict keys are those of the published FlowFeat files: `encoder.*` and `decoder.*`.

Shape legend: B images, D encoder width, p patch side, C feature channels, H x W pixels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from shards.files import sha256_of
from trainer.decoder import DPTDecoder
from trainer.encoder import EncoderSpec, FrozenViT, spec_of

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Encoded(NamedTuple):
    """low_bdhw: final-normed patch tokens [B, D, H/p, W/p]. maps_bdhw: raw outputs of the four hooked blocks, same shape, without CLS."""

    low_bdhw: Tensor
    maps_bdhw: tuple[Tensor, ...]


class FlowFeat(nn.Module):
    """Frozen ViT + DPT decoder. Build it with `FlowFeat.create` or `FlowFeat.from_pretrained`.

    Attributes: variant (name), spec (EncoderSpec), patch_size, encoder_dim (D), feature_dim (C, 128 officially),
    size_multiple (2 * patch: what H and W must be multiples of), encoder_source (where the frozen weights came from).
    """

    def __init__(self, spec: EncoderSpec, variant: str = "custom") -> None:
        super().__init__()
        self.variant = variant
        self.spec = spec
        self.encoder = FrozenViT(spec)
        self.decoder = DPTDecoder(spec.dim, spec.widths, spec.feature_dim)
        self.patch_size = spec.patch
        self.encoder_dim = spec.dim
        self.feature_dim = spec.feature_dim
        self.size_multiple = 2 * spec.patch
        self.encoder_source = "unknown"

    @classmethod
    def create(
        cls,
        variant: str | EncoderSpec,
        *,
        init: Literal["random", "pretrained"] | Path | str = "pretrained",
        seed: int = 0,
        feature_dim: int | None = None,
    ) -> FlowFeat:
        """A model with an untrained decoder.

        variant: a name of `trainer.ENCODERS`, or a spec of your own. init: where the encoder's weights come from: "random"
        (from `seed`), "pretrained" (the published file by name, downloaded once), or the path of a published file. The
        decoder depends on `seed` and its shapes only, whatever the encoder. The global random state is left alone.
        Raises ValueError for an unknown variant or a file of another encoder, OSError where a file cannot be had.
        """
        name, spec = (variant, spec_of(variant)) if isinstance(variant, str) else ("custom", variant)
        model = cls.blank(replace(spec, feature_dim=feature_dim) if feature_dim else spec, name)
        model.decoder.initialise(_generator(seed, stream=1))
        if init == "random":
            model.encoder.initialise(_generator(seed, stream=0))
            model.encoder_source = f"random:{seed}"
            return model
        from trainer import encoder_file, encoder_weights

        path = encoder_weights.fetch_encoder(name) if init == "pretrained" else Path(init)
        model.encoder.load_state_dict(encoder_file.read_encoder_file(path, model.spec, name))
        model.encoder_source = f"{path.name} sha256:{sha256_of(path)}"
        return model

    @classmethod
    def from_pretrained(cls, path: str | Path, *, variant: str | None = None, teacher: bool = False) -> FlowFeat:
        """Load a whole model: .safetensors or .pth; flat, nested under "model", "module."-prefixed, or a training snapshot.

        variant: only needed where the file fits no registered one. teacher: take the EMA decoder of a training snapshot.
        Raises ValueError naming missing, unexpected or misshapen keys; FileNotFoundError with the path.
        """
        from trainer import model_file

        found = model_file.read_model_file(Path(path), variant=variant, teacher=teacher)
        model = cls.blank(found.spec, found.variant)
        model.load_state_dict(found.tensors)
        model.encoder_source = found.metadata.get("encoder_source", f"model file {Path(path).name}")
        return model

    @classmethod
    def blank(cls, spec: EncoderSpec, variant: str = "custom") -> FlowFeat:
        """A model whose weights are not set yet: no time and no random numbers go into values about to be overwritten."""
        with torch.device("meta"):
            model = cls(spec, variant)
        return model.to_empty(device="cpu")

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
        gh, gw = images_bchw.shape[-2] // self.patch_size, images_bchw.shape[-1] // self.patch_size
        hooked = self.encoder(images_bchw)
        low = self.encoder.maps(self.encoder.norm(hooked[-1]), gh, gw)
        return Encoded(low, tuple(self.encoder.maps(tokens, gh, gw) for tokens in hooked))

    def decode(self, maps_bdhw: tuple[Tensor, ...], size_hw: tuple[int, int]) -> Tensor:
        """The trained half: the four maps of `encode` -> features [B, C, H, W]."""
        dense: Tensor = self.decoder(maps_bdhw, size_hw)
        return dense

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

    @staticmethod
    def normalise(images_bhwc: Tensor) -> Tensor:
        """[B, H, W, 3] uint8 RGB -> [B, 3, H, W] float32: v/255, minus ImageNet's mean, over its standard deviation."""
        if images_bhwc.dtype != torch.uint8 or images_bhwc.ndim != 4 or images_bhwc.shape[-1] != 3:
            raise ValueError(f"normalise takes uint8 [B, H, W, 3], not {images_bhwc.dtype} {list(images_bhwc.shape)}")
        mean, std = (
            images_bhwc.new_tensor(v, dtype=torch.float32).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD)
        )
        pixels = images_bhwc.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return pixels.div_(255).sub_(mean).div_(std)


def _generator(seed: int, stream: int) -> torch.Generator:
    """Independent streams of one seed, so that an encoder's size never shifts the decoder's numbers."""
    return torch.Generator().manual_seed(2 * seed + stream)

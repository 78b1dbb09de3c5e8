"""FlowFeat, the model other projects import: normalised images in, two feature maps out.

The network is `trainer.model.EncoderDecoder`; here is where its weights come from: a model file (`from_pretrained`), or
for the encoder a published file, a download or a seed (`create`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from shards.files import sha256_of
from trainer.encoder import EncoderSpec, spec_of
from trainer.encoder_file import read_encoder_file
from trainer.encoder_weights import fetch_encoder
from trainer.images import normalise
from trainer.model import EncoderDecoder
from trainer.model_file import read_model_file


class FlowFeat(EncoderDecoder):
    """Frozen ViT + DPT decoder. Build it with `FlowFeat.create` or `FlowFeat.from_pretrained`.

    Attributes: variant (name), spec (EncoderSpec), patch_size, encoder_dim (D), feature_dim (C, 128 officially),
    size_multiple (2 * patch: what H and W must be multiples of), encoder_source (where the frozen weights came from).
    """

    @classmethod
    def create(
        cls,
        variant: str | EncoderSpec,
        *,
        init: Literal["random", "pretrained"] | Path | str = "pretrained",
        seed: int = 0,
        feature_dim: int | None = None,
    ) -> Self:
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
        path = fetch_encoder(name) if init == "pretrained" else Path(init)
        model.encoder.load_state_dict(read_encoder_file(path, model.spec, name))
        model.encoder_source = f"{path.name} sha256:{sha256_of(path)}"
        return model

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        variant: str | None = None,
        teacher: bool = False,
        grid: tuple[int, int] | None = None,
    ) -> Self:
        """Load a whole model: .safetensors or .pth; flat, nested under "model", "module."-prefixed, or a training checkpoint.

        variant: only needed where the file fits no registered one. teacher: take the EMA decoder of a training checkpoint.
        grid: rows and columns of the stored position embedding, only needed for a MAE file that does not show it.
        Raises ValueError naming missing, unexpected or misshapen keys; FileNotFoundError with the path.
        """
        found = read_model_file(Path(path), variant=variant, teacher=teacher, grid=grid)
        model = cls.blank(found.spec, found.variant)
        model.load_state_dict(found.tensors)
        model.encoder_source = found.metadata.get("encoder_source", f"model file {Path(path).name}")
        return model

    @staticmethod
    def normalise(images_bhwc: Tensor) -> Tensor:
        """[B, H, W, 3] uint8 RGB -> [B, 3, H, W] float32: v/255, minus ImageNet's mean, over its standard deviation."""
        return normalise(images_bhwc)


def _generator(seed: int, stream: int) -> torch.Generator:
    """Independent streams of one seed, so that an encoder's size never shifts the decoder's numbers."""
    return torch.Generator().manual_seed(2 * seed + stream)

"""FlowFeat, the model other projects import: normalised images in, two feature maps out.

The network is `trainer.model.EncoderDecoder`; here is where its weights come from: a model file or an official
name (`from_pretrained`), or for the encoder a published file, a download or a seed (`create`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self, overload

import torch
from torch import Tensor

from shards.files import sha256_of
from trainer.encoder import FrozenViT
from trainer.encoder_file import read_encoder_file
from trainer.encoder_reference import is_reference, open_outside
from trainer.encoder_table import EncoderSpec, spec_of
from trainer.encoder_weights import fetch_encoder
from trainer.extract_features import Extracted, Fit, Frugality, Picture, Points, extract
from trainer.images import normalise
from trainer.model import EncoderDecoder
from trainer.model_file import read_model_file
from trainer.official_models import Official, find_model
from trainer.published import WeightsFile


class FlowFeat(EncoderDecoder):
    """Frozen encoder + DPT decoder. Build it with `FlowFeat.create` or `FlowFeat.from_pretrained`.

    Attributes: variant (name), spec (EncoderSpec or OutsideSpec), patch_size, encoder_dim (D), feature_dim (C, 128 officially),
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

        variant: a name of `trainer.ENCODERS`, a spec of your own, or an encoder that is not of this project: "timm:NAME", or
        "package.module:factory", which is imported and run (docs/models.md). init: where the encoder's weights come from:
        "random" (from `seed`), "pretrained" (the published file by name, downloaded once), or the path of a published file. The
        decoder depends on `seed` and its shapes only, whatever the encoder. The global random state is left alone.
        Raises ValueError for an unknown variant or a file of another encoder, OSError where a file cannot be had.
        """
        if isinstance(variant, str) and is_reference(variant):
            encoder, source = open_outside(variant, init, seed)
            outside = replace(encoder.spec, feature_dim=feature_dim or encoder.spec.feature_dim)
            model = cls.blank(outside, variant, encoder)
            model.decoder.initialise(_generator(seed, stream=1))
            model.encoder_source = source
            return model
        name, spec = (variant, spec_of(variant)) if isinstance(variant, str) else ("custom", variant)
        model = cls.blank(replace(spec, feature_dim=feature_dim or spec.feature_dim), name)
        model.decoder.initialise(_generator(seed, stream=1))
        vit = model.encoder
        assert isinstance(vit, FrozenViT)
        if init == "random":
            vit.initialise(_generator(seed, stream=0))
            model.encoder_source = f"random:{seed}"
            return model
        file = fetch_encoder(name) if init == "pretrained" else Path(init)
        path = file.path if isinstance(file, WeightsFile) else file
        vit.load_state_dict(read_encoder_file(path, vit.spec, name))
        digest = file.sha256 if isinstance(file, WeightsFile) else sha256_of(path)
        model.encoder_source = f"{path.name} sha256:{digest}"
        return model

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        variant: str | None = None,
        teacher: bool = False,
        grid: tuple[int, int] | None = None,
        check_values: bool = True,
    ) -> Self:
        """Load a whole model: .safetensors or .pth; flat, nested under "model", "module."-prefixed, or a training checkpoint.

        path: a file, or the name of an official model such as "dinov2_vits14_yt" (`trainer.official_models`; a file of that
        name goes first), which is downloaded once into the cache.
        variant: only needed where the file fits no registered one, or where its encoder is code of somebody's own, which is
        imported and run only if it is named here or in $FLOWFEAT_ALLOW_ENCODERS. teacher: take the EMA decoder of a training checkpoint.
        grid: rows and columns of the stored position embedding, only needed for a MAE file that does not show it.
        check_values: False takes a model with NaN or infinity in it as well.
        Raises ValueError naming missing, unexpected or misshapen keys, the first tensor that is not finite,
        or the names nearest to an unknown one; FileNotFoundError
        with the path; OSError saying what to do where an official file cannot be had.
        """
        place = find_model(path) if isinstance(path, str) else path
        file = place.path if isinstance(place, Official) else place
        asked = variant or (place.variant if isinstance(place, Official) else None)
        found = read_model_file(file, variant=asked, teacher=teacher, grid=grid, finite=check_values)
        model = cls.blank(found.spec, found.variant)
        model.load_state_dict(found.tensors)
        if isinstance(place, Official):
            model.encoder_source = f"official model {place.name} sha256:{place.sha256}"
            return model
        model.encoder_source = found.metadata.get("encoder_source", f"model file {file.name}")
        return model

    @overload
    def extract(
        self,
        pictures: Picture,
        *,
        points: Points | None = None,
        fit: Fit = "resize",
        normalised: bool = False,
        tile: int | None = None,
        overlap: int | None = None,
        memory: int | str | None = None,
    ) -> Extracted: ...

    @overload
    def extract(
        self,
        pictures: Sequence[Picture],
        *,
        points: Points | None = None,
        fit: Fit = "resize",
        normalised: bool = False,
        tile: int | None = None,
        overlap: int | None = None,
        memory: int | str | None = None,
    ) -> list[Extracted]: ...

    def extract(
        self,
        pictures: Picture | Sequence[Picture],
        *,
        points: Points | None = None,
        fit: Fit = "resize",
        normalised: bool = False,
        tile: int | None = None,
        overlap: int | None = None,
        memory: int | str | None = None,
    ) -> Extracted | list[Extracted]:
        """Features of one picture, or of a list of them (of any sizes, then a list comes back), without gradients.

        pictures: PIL image (turned as its EXIF says); numpy array [H, W, 3]; tensor [3, H, W] or [H, W, 3]; arrays and
        tensors with one more axis in front are batches. uint8, or floats from 0 to 1; normalised: floats as the plain call
        takes them. Where both the first and the last axis have length 3, the last is color in numpy, the first in torch.
        fit: sides that are no multiples of `size_multiple` are resized to the nearest ("resize") or padded at the right and
        the bottom by their last column and row ("pad"); the dense map is brought back to the picture's pixels either way.
        points: [N, 2], (x, y) in pixels of the picture, x to the right, y down; (0, 0) is the centre of the first pixel, so
        whole numbers give `high[:, y, x]` exactly; bilinear between. The same points for every picture.
        memory: bytes, or a text such as "4GiB", that the tensors of the call may take at once, weights and pictures not counted
        (`trainer.tiling.extraction_bytes`); a picture that needs more is cut into overlapping tiles, the largest that fit. tile:
        their side in pixels, said outright, a multiple of `size_multiple`; a tile as large as the picture is the plain call.
        overlap: of two tiles in pixels, at least; a quarter of the tile if not said. A tile is a picture of its own to the encoder,
        so tiled features differ from the plain ones (docs/models.md has by how much).
        Everything happens, and comes back, on the model's device. Raises ValueError for what is no picture, and where `memory` does
        not suffice.
        """
        frugality = Frugality(tile, overlap, memory)
        return extract(self, pictures, points=points, fit=fit, normalised=normalised, frugality=frugality)

    @staticmethod
    def normalise(images_bhwc: Tensor) -> Tensor:
        """[B, H, W, 3] uint8 RGB -> [B, 3, H, W] float32: v/255, minus ImageNet's mean, over its standard deviation."""
        return normalise(images_bhwc)


def _generator(seed: int, stream: int) -> torch.Generator:
    """Independent streams of one seed, so that an encoder's size never shifts the decoder's numbers."""
    return torch.Generator().manual_seed(2 * seed + stream)

"""Any vision transformer of timm (Wightman, PyTorch Image Models) as a frozen encoder: a name of its list in, a module out.

The module is a `trainer.encoder_protocol.FrozenEncoder`: four blocks at every quarter of the depth, without prefix tokens, patch and
normalisation as timm has them on record, any image size. timm is an extra of this project and is loaded only here.
"""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor, nn

from common.command import nearest
from trainer.encoder_protocol import Encoded
from trainer.outside_encoder import UNKNOWN_LICENCE

log = logging.getLogger(__name__)


class TimmEncoder(nn.Module):
    """A timm ViT. training_only: beginnings of keys that its files hold beside the encoder."""

    training_only = ("head.", "head_dist.", "fc_norm.", "attn_pool.")

    model: nn.Module

    def __init__(self, model: Any, patch: int, data: dict[str, Any], licence: str) -> None:
        super().__init__()
        self.model = model
        depth = len(model.blocks)
        self.layers = [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
        self.patch, self.width = patch, int(model.embed_dim)
        self.mean, self.std = tuple(data["mean"]), tuple(data["std"])
        self.licence = licence

    def forward(self, images_bchw: Tensor) -> Encoded:
        model: Any = self.model
        last_bnd, maps = model.forward_intermediates(images_bchw, indices=self.layers, output_fmt="NCHW")
        grid = (images_bchw.shape[-2] // self.patch, images_bchw.shape[-1] // self.patch)
        low_bnd = last_bnd[:, model.num_prefix_tokens :]
        return Encoded(low_bnd.unflatten(1, grid).permute(0, 3, 1, 2), tuple(maps))


def timm_encoder(name: str, *, pretrained: bool) -> TimmEncoder:
    """The model that timm calls `name`; pretrained: with its published weights, which timm fetches and keeps.

    Raises ValueError where timm is not installed, does not know the name, or it is no ViT that takes any image size.
    """
    try:
        import timm
        from timm.data import resolve_model_data_config
    except ImportError as error:
        raise ValueError(
            f"encoder timm:{name} needs the package timm ({error}): pip install 'flowfeat-shards[timm]'"
        ) from error
    if not timm.is_model(name):
        raise ValueError(
            f"timm has no model {name!r}; {nearest(name, timm.list_models('*vit*') or timm.list_models())}"
        )
    try:
        # Without its classifier; positions follow the size of each image instead of the one that the model was trained at.
        model = timm.create_model(name, pretrained=pretrained, num_classes=0, dynamic_img_size=True)
    except TypeError as error:
        raise ValueError(f"timm's {name} does not take images of any size ({error}): choose a plain ViT") from error
    except RuntimeError as error:
        raise ValueError(f"timm could not make {name}: {str(error).splitlines()[0]}") from error
    lacking = [
        part
        for part in ("blocks", "patch_embed", "forward_intermediates", "num_prefix_tokens")
        if not hasattr(model, part)
    ]
    if lacking:
        raise ValueError(f"timm's {name} is no plain ViT (it has no {lacking[0]}): choose one")
    height, width = model.patch_embed.patch_size
    if height != width or len(model.blocks) < 4:
        raise ValueError(
            f"timm's {name} has patches of {height}x{width} and {len(model.blocks)} blocks; the decoder takes square ones and four"
        )
    licence = str((model.pretrained_cfg or {}).get("license") or UNKNOWN_LICENCE)
    if pretrained:
        log.warning("the weights of timm:%s: licence %s", name, licence)
    return TimmEncoder(model, int(height), resolve_model_data_config(model), licence)

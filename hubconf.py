"""Entry of torch.hub: the same as the official repository's, and the same arguments.

torch.hub.load(<this checkout>, "flowfeat", name="dinov2_vits14_yt", source="local") is an official FlowFeat model; its file
is fetched by `trainer.official_models`.
"""

from __future__ import annotations

import torch

# With underscores, because torch.hub lists every callable without one as an entry.
from trainer import FlowFeat as _FlowFeat
from trainer.official_models import variant_of as _variant_of

# Modules, as torch.hub looks for them; what else the project uses is not needed for its models.
dependencies = ["torch", "numpy", "safetensors", "click", "rich"]


def flowfeat(
    name: str = "dinov2_vits14_yt",
    pretrained: bool = True,
    map_location: str | torch.device | None = None,
    strict: bool = True,
    *,
    fdim: int = 128,
    patch_size: int | None = None,
) -> _FlowFeat:
    """An official FlowFeat model in evaluation mode: normalised images in, (encoder map, dense map) out.

    name: dino_vits16_yt, dino_vitb16_yt, dino_vitb16_kt, dinov2_vits14_yt, dinov2_vitb14_yt, dinov2_vitb14_kt or mae_vitb16_kt.
    pretrained: False gives the published encoder under an untrained decoder. map_location: where the model goes; the CPU if
    not said. strict: for the official signature; a file must always fit in full. fdim: channels of the dense map, 128 in the
    official files, anything with pretrained=False. patch_size: must be the encoder's. Raises ValueError naming what is wrong
    and OSError where a file cannot be had.
    """
    model = _trained(name, fdim) if pretrained else _FlowFeat.create(_variant_of(name), feature_dim=fdim)
    if patch_size not in (None, model.patch_size):
        raise ValueError(f"patch_size = {patch_size}, but {name} has patches of {model.patch_size} pixels")
    return model.to(map_location or "cpu").eval()


def _trained(name: str, fdim: int) -> _FlowFeat:
    _variant_of(name)  # a name, where from_pretrained would also take a path
    model = _FlowFeat.from_pretrained(name)
    if fdim != model.feature_dim:
        raise ValueError(
            f"fdim = {fdim}, but {name} has {model.feature_dim} channels: only pretrained=False can change it"
        )
    return model

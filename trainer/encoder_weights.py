"""Published encoder weights: where they lie, how they get here, and whether a file is the encoder it is taken for.

A variant's name becomes a file in the cache (`fetch_encoder`, by way of `common.download`), and a file becomes the tensors of
a `FrozenViT` (`read_encoder_file`), as published: DINO and DINOv2 flat, MAE nested under "model".
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.cache import cache_dir
from common.download import PATIENCE, DownloadError, Patience, Progress, fetch
from common.progress import shown_in_megabytes
from trainer.encoder import ENCODERS, LICENCES, EncoderSpec, FrozenViT
from trainer.model_file import compare, encoder_facts, facts_of, unwrap
from trainer.tensor_file import read_tensor_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """url of a published encoder file; sha256 where it is known beforehand, else it is recorded at the first download."""

    url: str
    sha256: str | None = None


_HOST = "https://dl.fbaipublicfiles.com"
PUBLISHED: dict[str, Published] = {
    "dino_vits16": Published(f"{_HOST}/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth"),
    "dino_vitb16": Published(f"{_HOST}/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"),
    "dinov2_vits14": Published(f"{_HOST}/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth"),
    "dinov2_vitb14": Published(f"{_HOST}/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth"),
    "dinov2_vitl14": Published(f"{_HOST}/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth"),
    "mae_vitb16": Published(f"{_HOST}/mae/pretrain/mae_pretrain_vit_base.pth"),
    "mae_vitl16": Published(f"{_HOST}/mae/pretrain/mae_pretrain_vit_large.pth"),
}


def fetch_encoder(variant: str, *, patience: Patience = PATIENCE, progress: Progress | None = None) -> Path:
    """The cached file of a published encoder, downloaded if need be. Without `progress` the download has a display of its own.

    Raises ValueError for a variant without published weights or a file whose sha256 is not the recorded one, and OSError
    saying what to fetch by hand, and where to, when the network does not give it.
    """
    if variant not in PUBLISHED:
        raise ValueError(
            f"{variant} has no published weights; known: {', '.join(PUBLISHED)}. Use init='random' or the path of a file"
        )
    source = PUBLISHED[variant]
    path = cache_dir() / source.url.rsplit("/", 1)[-1]
    if variant.startswith("mae") and not path.exists():
        log.warning("the weights of %s are licensed %s: no commercial use", variant, LICENCES["mae"])
    try:
        with shown_in_megabytes(f"weights of {variant}") as shown:
            fetch(source.url, path, sha256=source.sha256, patience=patience, progress=progress or shown)
    except DownloadError as error:
        raise OSError(
            f"the weights of {variant} could not be downloaded: {error}. Either fetch {source.url} by hand and put it at "
            f"{path}, or give its place (init=PATH, encoder.weights=PATH in a config), or try without: init='random'"
        ) from error
    return path


def read_encoder_file(path: Path, spec: EncoderSpec, variant: str) -> dict[str, Tensor]:
    """The tensors of a published encoder file, keyed and shaped like `FrozenViT(spec)`.

    Raises FileNotFoundError, or ValueError when the file is damaged or is another encoder: it says which one it looks
    like and which keys or shapes differ first.
    """
    try:
        payload, _ = read_tensor_file(path)
    except FileNotFoundError as error:
        url = PUBLISHED[variant].url if variant in PUBLISHED else None
        hint = f"fetch it from {url}, or use init='pretrained' or init='random'" if url else "or use init='random'"
        raise FileNotFoundError(f"no encoder file {path} for {variant}: {hint}") from error
    except ValueError as error:
        raise ValueError(f"{error}; delete it and get it again") from error
    tensors = unwrap(payload)
    if any(key.startswith("encoder.") for key in tensors):
        raise ValueError(
            f"{path} is a whole FlowFeat model, not an encoder file: load it with FlowFeat.from_pretrained"
        )
    if spec.family == "mae":  # the full pre-training file also holds the reconstruction decoder
        tensors = {
            key: value for key, value in tensors.items() if not key.startswith("decoder_") and key != "mask_token"
        }
    with torch.device("meta"):
        expected = {key: tuple(value.shape) for key, value in FrozenViT(spec).state_dict().items()}
    differences = compare(tensors, expected)
    sign = family_sign(payload, tensors)
    if differences or sign[0] != spec.family:
        raise ValueError(
            f"{path} is not {variant}: {_looks_like(tensors, sign)}{'; ' + differences if differences else ''}"
        )
    return tensors


def family_sign(payload: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[str, str]:
    """(family, what shows it). MAE's fixed position table has a zero row for CLS, which no learned one has; its files are nested."""
    if any(key.endswith(".gamma") for key in tensors):
        return "dinov2", "it has LayerScale"
    if "pos_embed" in tensors and tensors["pos_embed"].ndim == 3 and not tensors["pos_embed"][0, 0].any():
        return "mae", "its position embedding is fixed"
    if isinstance(payload.get("model"), Mapping):
        return "mae", 'its tensors are nested under "model"'
    return "dino", "it is a flat file without LayerScale and with a learned position embedding"


def _looks_like(tensors: Mapping[str, Tensor], sign: tuple[str, str]) -> str:
    try:
        facts = encoder_facts(tensors)
    except KeyError as error:
        return f"it is no ViT of these families, as {error} is missing (first keys: {', '.join(list(tensors)[:3]) or 'none'})"
    fits = [name for name, spec in ENCODERS.items() if spec.family == sign[0] and facts_of(spec) == facts]
    shape = f"a {sign[0]} ViT of dim {facts[1]}, depth {facts[2]}, patch {facts[3]}"
    return f"it looks like {fits[0] if fits else shape} ({sign[1]})"

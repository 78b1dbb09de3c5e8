"""A published encoder file in, the tensors of a `FrozenViT` out, once it is certain that the file is the encoder asked for.

Files are read as published: DINO and DINOv2 flat, MAE nested under "model".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.encoder import ENCODERS, EncoderSpec, FrozenViT
from trainer.encoder_weights import PUBLISHED
from trainer.model_file import compare, encoder_facts, facts_of, unwrap
from trainer.tensor_file import read_tensor_file


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

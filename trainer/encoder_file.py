"""A published encoder file in, the tensors of a `FrozenViT` out, once it is certain that the file is the encoder asked for.

Files are read as published: DINO, DINOv2 and DINOv3 flat, MAE nested under "model".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.encoder import FrozenViT
from trainer.encoder_table import ENCODERS, EncoderSpec
from trainer.encoder_weights import PUBLISHED
from trainer.families import FAMILIES, Family, Grid, recognised
from trainer.tensor_file import check_values, compare, read_tensor_file, unwrap


def read_encoder_file(path: Path, spec: EncoderSpec, variant: str) -> dict[str, Tensor]:
    """The tensors of a published encoder file, keyed and shaped like `FrozenViT(spec)`.

    Raises FileNotFoundError, or ValueError when the file is damaged, holds tensors that are sparse, without values or not
    finite, or is another encoder: it says which one it looks like and which keys or shapes differ first.
    """
    try:
        payload, _ = read_tensor_file(path)
    except FileNotFoundError as error:
        url = spec.rules.request or PUBLISHED[variant].url if variant in PUBLISHED else None
        hint = f"fetch it from {url}, or use init='pretrained' or init='random'" if url else "or use init='random'"
        raise FileNotFoundError(f"no encoder file {path} for {variant}: {hint}") from error
    except ValueError as error:
        raise ValueError(f"{error}; delete it and get it again") from error
    tensors = unwrap(payload)
    if any(key.startswith("encoder.") for key in tensors):
        raise ValueError(
            f"{path} is a whole FlowFeat model, not an encoder file: load it with FlowFeat.from_pretrained"
        )
    tensors = {key: value for key, value in tensors.items() if not key.startswith(spec.rules.training_only)}
    try:
        check_values(tensors, path)
    except ValueError as error:
        raise ValueError(f"{error}; get the file again or use another") from error
    with torch.device("meta"):
        expected = {key: tuple(value.shape) for key, value in FrozenViT(spec).state_dict().items()}
    differences = compare(tensors, expected)
    family, sign = recognised(payload, tensors)
    if differences or family.name != spec.family:
        raise ValueError(
            f"{path} is not {variant}: {_looks_like(tensors, family, sign)}{'; ' + differences if differences else ''}"
        )
    grids = [] if spec.rules.rotary else stored_grids(tensors["pos_embed"], spec)
    if grids and spec.grid not in grids:
        raise ValueError(
            f"{path} holds positions of a {grids[0][0]}x{grids[0][1]} grid of tokens, not of {variant}'s "
            f"{spec.grid[0]}x{spec.grid[1]}: pass an EncoderSpec with that grid instead of the name"
        )
    return tensors


def stored_grids(position_1pd: Tensor, spec: EncoderSpec) -> list[Grid]:
    """The layouts that a file's position table shows by itself; empty where the family's table does not."""
    if spec.rules.grid_of is None or position_1pd.ndim != 3:
        return []
    return spec.rules.grid_of(position_1pd[0])


class Facts(NamedTuple):
    """What the keys and shapes of an encoder say about it: `marks` are the keys that only some families have."""

    marks: frozenset[str]
    dim: int
    depth: int
    patch: int


def encoder_facts(tensors: Mapping[str, Tensor]) -> Facts:
    """Facts of an encoder's tensors (no prefix). Raises KeyError if it is no such ViT."""
    patch_dchw = tensors["patch_embed.proj.weight"]
    depth = sum(key.startswith("blocks.") and key.endswith(".norm1.weight") for key in tensors)
    known = frozenset[str]().union(*(family.marks for family in FAMILIES.values()))
    return Facts(known & tensors.keys(), int(patch_dchw.shape[0]), depth, int(patch_dchw.shape[-1]))


def facts_of(spec: EncoderSpec) -> Facts:
    """What `encoder_facts` would find in a file of this spec."""
    return Facts(spec.rules.marks, spec.dim, spec.depth, spec.patch)


def _looks_like(tensors: Mapping[str, Tensor], family: Family, sign: str) -> str:
    try:
        facts = encoder_facts(tensors)
    except KeyError as error:
        return f"it is no ViT of these families, as {error} is missing (first keys: {', '.join(list(tensors)[:3]) or 'none'})"
    fits = [name for name, spec in ENCODERS.items() if spec.family == family.name and facts_of(spec) == facts]
    shape = f"a {family.name} ViT of dim {facts.dim}, depth {facts.depth}, patch {facts.patch}"
    return f"it looks like {fits[0] if fits else shape} ({sign})"

"""Weights and inputs of the reference fixtures, as tensors."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from trainer.encoder import FrozenViT
from trainer.flowfeat import FlowFeat
from trainer.model import EncoderDecoder

DATA = Path(__file__).resolve().parents[1] / "data"
OFFICIAL = ("dino_vits16", "dino_vitb16", "dinov2_vits14", "dinov2_vitb14", "dinov2_vitl14", "mae_vitb16", "mae_vitl16")
TINY = {"dino": "tiny_dino8", "dinov2": "tiny_dinov2_14", "mae": "tiny_mae16"}


def _load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_weights", DATA / "parity_weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


parity_weights = _load_generator()


def tensors(state: dict[str, np.ndarray], prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + key: torch.from_numpy(value) for key, value in state.items()}


def meta_of(arrays: Any) -> dict[str, Any]:
    return json.loads(str(arrays["meta"]))


def tiny_model(arrays: Any, family: str) -> FlowFeat:
    """The model of parity_tiny for one family, weights as its meta prescribes."""
    meta = meta_of(arrays)
    number = list(TINY).index(family)
    encoder = parity_weights.make_state_dict(meta["shapes"][family]["encoder"], meta["seed"] + number)
    decoder = parity_weights.make_state_dict(meta["shapes"][family]["decoder"], meta["seed"] + 10 + number)
    model = FlowFeat.create(TINY[family], init="random")
    model.load_state_dict({**tensors(encoder, "encoder."), **tensors(decoder, "decoder.")})
    return model


def vit_of(model: EncoderDecoder) -> FrozenViT:
    """The encoder of a model that stands on one of our own ViTs."""
    assert isinstance(model.encoder, FrozenViT)
    return model.encoder


def random_state(variant: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """A whole random model's tensors, as a file would hold them."""
    return {
        key: value.clone() for key, value in FlowFeat.create(variant, init="random", seed=seed).state_dict().items()
    }


def encoder_state(variant: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Its encoder part under the names of a published encoder file."""
    state = random_state(variant, seed)
    return {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}

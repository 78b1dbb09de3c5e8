"""Encoders that are not ours by name: "timm:NAME" or "package.module:factory" in, an `OutsideEncoder` out.

A factory is a function of yours that takes `pretrained` (True for encoder.init = "pretrained") and gives a torch module as
`trainer.encoder_protocol.FrozenEncoder` says; docs/models.md has one to copy. Building one imports and runs its code. So a
reference is followed where a user has written it (a config, an argument, $FLOWFEAT_ALLOW_ENCODERS), never because a model
file holds it (`check_permitted`). timm's names stand for code of the installed timm, and need no permission.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch

from common.command import nearest
from shards.files import sha256_of
from trainer.encoder_table import EncoderSpec, spec_of
from trainer.outside_encoder import OutsideEncoder, OutsideSpec
from trainer.tensor_file import check_values, compare, content_digest, read_tensor_file, unwrap
from trainer.timm_encoder import TimmEncoder, timm_encoder

ALLOWED = "FLOWFEAT_ALLOW_ENCODERS"
_TIMM = "timm:"


def is_reference(variant: str) -> bool:
    """Whether a variant's name means an encoder that is not in `trainer.encoder_table.ENCODERS`."""
    return ":" in variant


def describe(variant: str) -> EncoderSpec | OutsideSpec:
    """The spec of a registered variant, or of a reference, which is built for it. Raises ValueError as `spec_of` and
    `build_outside` do."""
    return build_outside(variant).spec if is_reference(variant) else spec_of(variant)


def build_outside(reference: str, *, pretrained: bool = False, seed: int = 0) -> OutsideEncoder:
    """Build it. What it draws at random follows `seed`; the global random state is left alone.

    Raises ValueError naming the reference where there is no such thing or it is no encoder.
    """
    make: Callable[..., Any]
    if reference.startswith(_TIMM):
        name = reference.removeprefix(_TIMM)
        make = lambda pretrained: timm_encoder(name, pretrained=pretrained)  # noqa: E731
    else:
        make = _factory(reference)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return OutsideEncoder(reference, make(pretrained=pretrained))


def open_outside(
    reference: str, init: Literal["random", "pretrained"] | Path | str, seed: int
) -> tuple[OutsideEncoder, str]:
    """The encoder with its weights, and where they came from, as `FlowFeat.create` says of `init`."""
    if init == "random":
        return build_outside(reference, seed=seed), f"random:{seed}"
    if init == "pretrained":
        encoder = build_outside(reference, pretrained=True, seed=seed)
        return encoder, f"{reference} sha256:{content_digest(encoder.module.state_dict(), {})}"
    path = Path(init)
    encoder = build_outside(reference, seed=seed)
    read_weights(encoder, path)
    return encoder, f"{path.name} sha256:{sha256_of(path)}"


def read_weights(encoder: OutsideEncoder, path: Path) -> None:
    """Fill an encoder from a .pth or .safetensors file whose keys are the module's own (timm's: those of the files that it
    publishes). Raises FileNotFoundError, or ValueError naming what does not fit."""
    module, tensors = encoder.module, unwrap(read_tensor_file(path)[0])
    if isinstance(module, TimmEncoder):
        tensors = {key: value for key, value in tensors.items() if not key.startswith(module.training_only)}
        module = module.model
    check_values(tensors, path)
    differences = compare(tensors, {key: tuple(value.shape) for key, value in module.state_dict().items()})
    if differences:
        raise ValueError(f"{path} does not fit {encoder.reference}: {differences}")
    module.load_state_dict(tensors)


def check_permitted(reference: str, path: Path) -> None:
    """Raises ValueError unless the code that a model file asks for is timm's or listed in $FLOWFEAT_ALLOW_ENCODERS."""
    listed = [name.strip() for name in os.environ.get(ALLOWED, "").split(",")]
    if not reference.startswith(_TIMM) and reference not in listed:
        raise ValueError(
            f"{path} stands on the encoder {reference}, whose code would be imported and run: if you trust it, pass "
            f"variant={reference!r} or set {ALLOWED}={reference}"
        )


def _factory(reference: str) -> Callable[..., Any]:
    place, _, name = reference.partition(":")
    if not place or not name.isidentifier():
        raise ValueError(f"encoder {reference!r} is neither timm:NAME nor package.module:factory")
    try:
        module = import_module(place)
    except ImportError as error:
        raise ValueError(f"encoder {reference}: {place} cannot be imported ({error}); is it on PYTHONPATH?") from error
    if not hasattr(module, name):
        public = [other for other in vars(module) if not other.startswith("_")]
        raise ValueError(f"encoder {reference}: {place} has no {name}; {nearest(name, public)}")
    made = getattr(module, name)
    if not callable(made):
        raise ValueError(f"encoder {reference}: {name} is a {type(made).__name__}, not a function")
    return made

"""The sources that stand on a checkpoint's own encoder: it alone, resized, under an untrained decoder, and under trained ones.

They share one frozen encoder, so that a difference between two rows of a table is the decoder's doing. A model file comes in
through `open_checkpoint`; `table.py` lists the functions below that make a source of it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from probes.heads.pamr import flowfeat_plus_plus
from probes.sources.features import Encoding, Features, Source
from probes.sources.request import UNASKED, SourceRequest
from shards.files import sha256_of
from trainer import FlowFeat, Official, find_model, training_set


@dataclass(frozen=True, eq=False)
class FlowFeatEncoder:
    """The encoder of a FlowFeat."""

    model: FlowFeat

    @property
    def size_multiple(self) -> int:
        return self.model.size_multiple

    def encode(self, images_bhwc: Tensor) -> Encoding:
        images_bchw = self.model.normalise(images_bhwc)
        encoded = self.model.encode(images_bchw)
        return Encoding(images_bchw, encoded.low_bdhw, encoded.maps_bdhw)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What sources are made from: a model, where it came from, the seed of whatever is drawn at random, what was asked for
    concerning networks of others, and the digest of the shard set that the model was trained on, where that is known."""

    encoder: FlowFeatEncoder
    path: Path
    sha256: str
    teacher: bool
    seed: int
    request: SourceRequest = UNASKED
    trained_on: str | None = None

    @property
    def model(self) -> FlowFeat:
        return self.encoder.model

    def settings(self) -> dict[str, str | int]:
        """What of it shapes a score."""
        return {
            "model": self.path.name,
            "model_sha256": self.sha256,
            "decoder": "teacher" if self.teacher else "student",
            "variant": self.model.variant,
            "patch": self.model.patch_size,
            "seed": self.seed,
        }


def open_checkpoint(
    place: Path,
    *,
    teacher: bool = False,
    seed: int = 0,
    device: torch.device,
    request: SourceRequest = UNASKED,
) -> Checkpoint:
    """place: a model file, or the name of an official model (docs/models.md), which is fetched once. teacher: take the EMA decoder
    of a training checkpoint. Raises ValueError or OSError saying what is wrong with the file."""
    found = find_model(str(place))
    path, variant = (found.path, found.variant) if isinstance(found, Official) else (found, None)
    if not path.is_file():
        raise ValueError(
            f"no model file {path}: train one with `python -m trainer train`, or name another with --model"
        )
    digest = found.sha256 if isinstance(found, Official) else sha256_of(path)
    model = FlowFeat.from_pretrained(path, variant=variant, teacher=teacher).to(device).eval()
    return Checkpoint(FlowFeatEncoder(model), path, digest, teacher, seed, request, training_set(path))


def encoder_alone(checkpoint: Checkpoint, name: str) -> Source:
    """y_enc at the token grid."""
    return Source(
        name, checkpoint.encoder, lambda encoding: Features(encoding.low_bdgf), modules=(checkpoint.model.encoder,)
    )


def resized_tokens(checkpoint: Checkpoint, name: str) -> Source:
    """y_enc resized bilinearly to every pixel (align_corners False): what any upsampler has to beat."""

    def decode(encoding: Encoding) -> Features:
        dense = F.interpolate(encoding.low_bdgf, size=encoding.size_hw, mode="bilinear", align_corners=False)
        return Features(encoding.low_bdgf, dense, dense_alone=True)

    return Source(name, checkpoint.encoder, decode, modules=(checkpoint.model.encoder,))


def trained_decoder(checkpoint: Checkpoint, name: str) -> Source:
    """y_enc at the token grid and y_dec at every pixel."""
    return _trained(checkpoint, name, checkpoint.model)


def random_decoder(checkpoint: Checkpoint, name: str) -> Source:
    """The same with a decoder as it is before training."""
    return _decoded(checkpoint, name, with_fresh_decoder(checkpoint.model, checkpoint.seed))


def refined(checkpoint: Checkpoint, name: str) -> Source:
    """FlowFeat++: the features of the trained decoder, which also refine the logits of the probe that is fitted to them."""

    def refine(logits_bchw: Tensor, features: Features) -> Tensor:
        assert features.high_bkhw is not None
        return flowfeat_plus_plus(logits_bchw, features.high_bkhw)

    return replace(_trained(checkpoint, name, checkpoint.model), refine=refine)


def teacher_decoder(checkpoint: Checkpoint, name: str) -> Source:
    """The same with the teacher, the EMA copy of the decoder. Raises ValueError where the model file holds none."""
    if checkpoint.teacher:
        return _trained(checkpoint, name, checkpoint.model)
    teacher = FlowFeat.from_pretrained(checkpoint.path, teacher=True)
    device = next(checkpoint.model.parameters()).device
    teacher.encoder = checkpoint.model.encoder  # the file's own, which is not held twice
    return _trained(checkpoint, name, teacher.to(device).eval())


def _trained(checkpoint: Checkpoint, name: str, model: FlowFeat) -> Source:
    return replace(_decoded(checkpoint, name, model), trained_on=checkpoint.trained_on)


def _decoded(checkpoint: Checkpoint, name: str, model: FlowFeat) -> Source:
    @torch.no_grad()
    def decode(encoding: Encoding) -> Features:
        return Features(encoding.low_bdgf, model.decode(encoding.hooked_bdgf, encoding.size_hw))

    return Source(name, checkpoint.encoder, decode, modules=(model.encoder, model.decoder))


def with_fresh_decoder(model: FlowFeat, seed: int) -> FlowFeat:
    """The same encoder (shared, not copied) under a decoder of the same shape with newly drawn weights.

    Weights are drawn on the CPU, so that `seed` means the same decoder on every device, by the decoder's own initialisation,
    as a training run's are at step 0. The global generator is left as it was.
    """
    fresh = copy.deepcopy(model, memo={id(model.encoder): model.encoder})
    device = next(model.decoder.parameters()).device
    fresh.decoder.cpu().initialise(torch.Generator().manual_seed(seed))
    fresh.decoder.to(device)
    return fresh

"""The networks of the package ptlflow: which there are, what they take, where their checkpoints come from, and how one is made.

Comes in: the name of a model, options as text, a file or a seed. Goes out: the model on the CPU, and the identity of its weights. The
package (extra `ptlflow`) is imported when a network of it is asked for, never before: it brings torchvision, timm and lightning. Facts
about it are of version 0.4.2: `get_model`, `get_model_reference(...).pretrained_checkpoints`, and what its checkpoints hold.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import sys
from argparse import ArgumentError
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from common.command import nearest
from common.memory import is_out_of_memory
from pipeline.flow.weights.catalogue import KnownWeights, WeightSource, given, present

PREFIX = "ptlflow:"

SURROUNDED = frozenset({"memfof", "videoflow_bof"})
"""Networks of three frames: before, anchor, after. They get the neighbours at -k and +k together."""

SMALLEST_SIDES_PX = {"memfof": 225}
"""Where it is not 128, which four levels of correlation at 1/8 need: MEMFOF has them at 1/16, and pads to multiples of 32."""

_UNSUITABLE = {
    "streamflow": "it relates four frames in a row",
    "videoflow_mof": "it relates five frames in a row",
    "memflow": "it remembers earlier calls, so the flow of a pair would depend on what came before it",
    "memflow_t": "it remembers earlier calls, so the flow of a pair would depend on what came before it",
}
_ITERATIONS = ("iters", "iters_per_level", "decoder_depth")
"""What models call their number of iterations, where they have one."""
_FACTS = ("train_size", "train_avg_length")
"""What a checkpoint says about its training that some models look at when they run."""


@dataclass(frozen=True)
class ModelSpec:
    """A model with all that shapes its flow. name: without the prefix. arguments: of its constructor, as text."""

    name: str
    source: WeightSource
    arguments: tuple[tuple[str, str], ...] = ()


def package() -> ModuleType:
    """ptlflow. Raises ValueError where it is not installed, or what is installed cannot be imported."""
    if find_spec("ptlflow") is None:
        raise ValueError("networks of ptlflow need the package ptlflow: pip install 'flowfeat-shards[ptlflow]'")
    try:
        with redirect_stdout(sys.stderr):  # its modules print; what goes to stdout here may be read by machines
            return import_module("ptlflow")
    except (
        ImportError,
        RuntimeError,
        OSError,
        AttributeError,
    ) as broken:  # of it, or of one of the packages that it imports
        raise ValueError(
            f"ptlflow is installed and cannot be imported ({type(broken).__name__}: {_first_line(broken)}); "
            "install a torchvision that fits this torch, or what else is named"
        ) from broken


def version() -> str:
    """Of the package."""
    return str(package().__version__)


def check_model(name: str) -> None:
    """Raises ValueError for a model that ptlflow does not have, or whose flow is not that of a pair or of three frames."""
    known = package().get_model_names()
    if name not in known:
        raise ValueError(f"ptlflow has no model {name!r}; {nearest(name, known)}")
    if name in _UNSUITABLE:
        raise ValueError(f"{PREFIX}{name} cannot be a teacher here: {_UNSUITABLE[name]}; choose another model")


def resolve(name: str, wanted: str | None) -> WeightSource:
    """What `--weights` means for a model: a file, `random:SEED`, or the name of one of its checkpoints that has been fetched.

    Raises ValueError saying what there is, or how to get the file when it is not there.
    """
    if wanted is None:
        names = ", ".join(_checkpoints(name)) or "none is published"
        raise ValueError(
            f"{PREFIX}{name} has no default weights; give --weights NAME ({names}), a file, or random:SEED"
        )
    return given(wanted) or WeightSource(path=present(published(name, wanted)))


def published(name: str, checkpoint: str) -> KnownWeights:
    """A checkpoint that ptlflow names for a model. Raises ValueError for an unknown one."""
    urls = _checkpoints(name)
    if checkpoint not in urls:
        raise ValueError(f"ptlflow names no checkpoint {checkpoint!r} for {name}; {nearest(checkpoint, urls)}")
    url = urls[checkpoint]
    file = url.rsplit("/", 1)[1]
    hashed = re.search(r"-([0-9a-f]{8,64})\.\w+$", file)
    licence = "see the model's page in ptlflow; for most none is stated for the weights"
    return KnownWeights(
        f"{PREFIX}{name}:{checkpoint}",
        f"{PREFIX}{name}",
        file,
        url,
        licence,
        0.0,
        checkpoint,
        hashed[1] if hashed else None,
    )


def find(name: str) -> KnownWeights:
    """The checkpoint called ptlflow:MODEL:CHECKPOINT, as `weights get` takes it. Raises ValueError."""
    model, _, checkpoint = name.removeprefix(PREFIX).partition(":")
    check_model(model)
    return published(model, checkpoint)


def _checkpoints(name: str) -> Mapping[str, str]:
    urls: Mapping[str, str] = getattr(package().get_model_reference(name), "pretrained_checkpoints", {})
    return urls


def make(spec: ModelSpec) -> nn.Module:
    """The model on the CPU in evaluation mode, with its weights. Raises ValueError for arguments or a file that do not fit it.

    Some models fetch the published weights of their backbone while they are made; where that fails the error says so, as where a package
    that only this model needs is missing.
    """
    ptlflow = package()
    parsed = _parsed(ptlflow, spec)
    try:
        with torch.random.fork_rng(devices=[]), redirect_stdout(sys.stderr):
            torch.manual_seed(spec.source.seed or 0)
            model: nn.Module = ptlflow.get_model(spec.name, None, parsed)
    except OSError as unreachable:
        raise ValueError(
            f"{PREFIX}{spec.name} could not be made ({_first_line(unreachable)}): it wants weights of its backbone, which are not in "
            f"{torch.hub.get_dir()}"
        ) from unreachable
    except (
        Exception
    ) as broken:  # a constructor meets whatever the packages that it needs are like: one is missing, another too new
        if is_out_of_memory(broken):
            raise
        raise ValueError(
            f"{PREFIX}{spec.name} could not be made ({type(broken).__name__}: {_first_line(broken)})"
        ) from broken
    if spec.source.path is not None:
        _restore(model, spec.name, spec.source.path)
    return model.eval().requires_grad_(False)


def _parsed(ptlflow: ModuleType, spec: ModelSpec) -> Any:
    """What `get_model` takes for arguments. Its own parser is asked, so that types are those of the constructor."""
    parser = import_module("jsonargparse").ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ptlflow.get_model_reference(spec.name), "model")
    known = sorted(vars(parser.get_defaults()["model"]))
    words = []
    for name, text in spec.arguments:
        argument = name
        if name == "iterations":
            argument = next((candidate for candidate in _ITERATIONS if candidate in known), name)
        if argument not in known:
            raise ValueError(f"{PREFIX}{spec.name} has no option {name!r}; {nearest(name, known)}")
        words.append(f"--model.{argument}={text}")
    try:
        return parser.parse_args(words)
    except ArgumentError as refused:
        raise ValueError(f"{PREFIX}{spec.name}: {' '.join(str(refused).split())}") from refused


def _restore(model: nn.Module, name: str, path: Path) -> None:
    """As ptlflow's `restore_model`, but for the device: that one puts tensors on the first GPU wherever there is one, even in a process
    that only looks at them, or that works on another GPU."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        facts: dict[str, Any] = content.get("hyper_parameters", {})
        for fact in [fact for fact in _FACTS if fact in facts]:
            setattr(model, fact, facts[fact])
        for parameter, value in facts.get("extra_params", {}).items():
            cast(Any, model).add_extra_param(parameter, value)
        model.load_state_dict(content["state_dict"])
    except pickle.UnpicklingError as foreign:  # torch's own words advise to run whatever code the file holds
        raise ValueError(
            f"{path} does not fit {PREFIX}{name}: it holds something else than tensors, or is damaged; "
            "give a checkpoint that ptlflow wrote or published for this model"
        ) from foreign
    except Exception as foreign:  # a foreign file meets whatever code its bytes lead to
        raise ValueError(
            f"{path} does not fit {PREFIX}{name} ({type(foreign).__name__}: {_first_line(foreign)}); "
            "give a checkpoint that ptlflow wrote or published for this model"
        ) from foreign


def identity(model: nn.Module) -> str:
    """ "sha256:…" of everything that the state dictionary holds: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {list(plain.shape)}\n".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy())
    return f"sha256:{digest.hexdigest()}"


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]

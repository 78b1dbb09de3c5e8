"""What a source is, for records and for the cache: the hash of its weights and code, its size, what its features look like.

`weights_sha256` depends on the names, types, shapes and bytes of all tensors of a network, not on the file that they came in.
`code_sha256` covers the files that define the network's classes and this folder, so that features of another version of the
code are never taken for these.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from probes.sources.features import Source, features_of

HERE = Path(__file__).parent


def weights_sha256(modules: Iterable[nn.Module]) -> str:
    """Hexadecimal SHA-256 of all parameters and buffers, on whatever device they lie."""
    digest = hashlib.sha256()
    for module in modules:
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        digest.update(b"\n")
    return digest.hexdigest()


def code_sha256(modules: Iterable[nn.Module]) -> str:
    """Hexadecimal SHA-256 of the files that define the classes of a network, and of how they are put together."""
    digest = hashlib.sha256()
    files = set(HERE.glob("*.py"))
    for module in modules:
        digest.update(repr(module).encode())
        for part in module.modules():
            if type(part).__module__.partition(".")[0] != "torch":
                files |= _file_of(type(part))
    for path in sorted(files):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _file_of(kind: type[nn.Module]) -> set[Path]:
    try:
        found = inspect.getsourcefile(kind)
    except TypeError:  # defined at a prompt: no file to hash
        return set()
    return {Path(found)} if found and Path(found).is_file() else set()


def identity_sha256(source: Source) -> str:
    """Of all that decides a source's features besides the picture: equal ones give equal features."""
    # FlowFeat++ has FlowFeat's features.
    name = source.name.removesuffix("++")
    parts = [name, source.spec, weights_sha256(source.modules), code_sha256(source.modules)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def parameter_count(modules: Iterable[nn.Module]) -> int:
    """Parameters of all networks, shared ones once."""
    return sum({id(one): one.numel() for module in modules for one in module.parameters()}.values())


@dataclass(frozen=True)
class SourceDescription:
    """weights_sha256: of all its networks. low_cgf, high_chw: channels, rows and columns of its maps for one picture of
    `size_hw`; None without a dense map."""

    name: str
    weights_sha256: str
    parameters: int
    size_hw: tuple[int, int]
    low_cgf: tuple[int, int, int]
    high_chw: tuple[int, int, int] | None


def describe(source: Source, size_hw: tuple[int, int], device: torch.device) -> SourceDescription:
    """A source as records keep it; its features are found by one grey picture of `size_hw` (multiples of the encoder's)."""
    grey = torch.full((1, *size_hw, 3), 128, dtype=torch.uint8, device=device)
    ((_, features),) = features_of([source], grey)
    low, high = features.low_bdgf, features.high_bkhw
    return SourceDescription(
        source.name,
        weights_sha256(source.modules),
        parameter_count(source.modules),
        size_hw,
        (low.shape[1], low.shape[2], low.shape[3]),
        None if high is None else (high.shape[1], high.shape[2], high.shape[3]),
    )

"""Weights into a network, strictly: from any published file, or random ones from a seed.

A file is recognised by its keys, in any of the layouts that the network is published in; what
does not fit exactly is refused with the family that the file looks like and the first keys
that differ. Files are read without running code from them (`weights_only`, safetensors).
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.flow.networks.table import NETWORKS
from pipeline.flow.weights.key_layouts import LAYOUTS, Layout, expected, shapes_of, without_aliases
from shards.files import sha256_of

_SHOWN_KEYS = 3


def hash_in_name(name: str) -> str | None:
    """The sha256 prefix that torchvision and ptlflow put into file names (raft_large_…-0b8c9e55.pth, …-0beef53e.ckpt), else None."""
    match = re.fullmatch(
        r"(?:raft_(?:large|small)_.*-([0-9a-f]{8,64})\.pth|flow_anything-.*-([0-9a-f]{8,64})\.ckpt)", name
    )
    return (match[1] or match[2]) if match else None


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pth, .pt or .ckpt file, `module.` prefixes removed. Raises ValueError naming the file.

    Lightning's checkpoints (.ckpt) hold them under `state_dict`, beside settings that are not needed here.
    """
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as missing:
        raise ValueError(f"no weights file at {path}") from missing
    except pickle.UnpicklingError as foreign:  # torch's own words advise to run whatever code the file holds
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) cannot be read as a checkpoint: it holds something else than tensors, or is "
            "damaged; give a file of a state dictionary alone"
        ) from foreign
    except OSError as unreadable:
        raise ValueError(f"{path} cannot be read: {unreadable.strerror or unreadable}") from unreadable
    except (
        Exception
    ) as broken:  # a foreign file meets whatever code its bytes lead to: IndexError, AttributeError, struct.error ...
        reason = f"{type(broken).__name__} {broken}".split("\n", 1)[0].strip()
        raise ValueError(f"{path} ({path.stat().st_size} bytes) cannot be read as a checkpoint: {reason}") from broken
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} is not a flat dictionary of tensors, as published flow checkpoints are")
    if content and all(key.startswith("module.") for key in content):
        return {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


@dataclass(frozen=True)
class Difference:
    """How a file's keys differ from those of one network in one layout; each entry is a line for the user."""

    network: str
    layout: str
    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]
    unequal_aliases: list[str]

    @property
    def size(self) -> int:
        """Number of differing keys; 0 means that the file fits."""
        return len(self.missing) + len(self.unexpected) + len(self.misshapen) + len(self.unequal_aliases)

    def describe(self) -> str:
        """The first keys of every kind of difference."""
        kinds = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of another shape": self.misshapen,
            "with two unequal copies": self.unequal_aliases,
        }
        return "; ".join(
            f"{len(keys)} {kind}: {', '.join(keys[:_SHOWN_KEYS])}{', …' if len(keys) > _SHOWN_KEYS else ''}"
            for kind, keys in kinds.items()
            if keys
        )


def difference(tensors: Mapping[str, Tensor], network: str, layout: Layout) -> Difference:
    """Compare a file's tensors with what `network` in `layout` has to have."""
    wanted = expected(network, layout)
    found = without_aliases(layout, tensors, wanted)
    aliases = {alias: key for key in wanted if (alias := layout.alias_of(key)) is not None and alias in tensors}
    misshapen = [
        f"{key} {list(tensors[at].shape)} instead of {list(wanted[key])}"
        for key, at in sorted(found.items())
        if tuple(tensors[at].shape) != wanted[key]
    ]
    return Difference(
        network,
        layout.name,
        missing=sorted(set(wanted) - set(found)),
        unexpected=sorted(set(tensors) - set(wanted) - set(aliases)),
        misshapen=misshapen,
        unequal_aliases=[
            a for a, key in aliases.items() if key in tensors and not torch.equal(tensors[a], tensors[key])
        ],
    )


def nearest(tensors: Mapping[str, Tensor], names: Iterable[str]) -> Difference:
    """The smallest difference to any of the networks in any layout that it is published in."""
    pairs = ((name, LAYOUTS[layout]) for name in names for layout in NETWORKS[name].layouts)
    return min((difference(tensors, name, layout) for name, layout in pairs), key=lambda found: found.size)


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a file that fits a network, under our names; identity: "sha256:…" of the file."""

    tensors: dict[str, Tensor]
    identity: str


def fitting_checkpoint(name: str, path: Path) -> Checkpoint:
    """Read a file for the network `name`, which need not be built for that.

    Raises ValueError if the file cannot be read, if its name carries a hash that it does not have, or if
    its keys and shapes are not exactly those of the network.
    """
    tensors = read_checkpoint(path)
    digest, claimed = sha256_of(path), hash_in_name(path.name)
    if claimed is not None and not digest.startswith(claimed):
        raise ValueError(f"{path} is damaged or not what its name says: its sha256 starts with {digest[:8]}")
    own = nearest(tensors, [name])
    if own.size:
        closest = nearest(tensors, NETWORKS)
        looks = f"{closest.network} ({closest.layout} names)"
        if closest.size > len(tensors) / 2:
            looks = "none of the known networks"
        elif closest.network == name:
            looks = f"a damaged or modified {looks}"
        raise ValueError(f"{path} does not fit {name}; it looks like {looks}. Keys: {own.describe()}")
    layout = LAYOUTS[own.layout]
    found_at = without_aliases(layout, tensors, expected(name, layout))
    return Checkpoint({key: tensors[found_at[layout.rename(key)]] for key in shapes_of(name)}, f"sha256:{digest}")


def load_checkpoint(net: nn.Module, name: str, path: Path) -> str:
    """Fill the network `name` from a file and return the file's identity. Raises ValueError as `fitting_checkpoint` does."""
    checkpoint = fitting_checkpoint(name, path)
    net.load_state_dict(checkpoint.tensors, strict=True)
    return checkpoint.identity


def load_random(net: nn.Module, seed: int) -> str:
    """Fill a network with random weights, a pure function of the seed and our key names; returns "random:SEED".

    For tests and dry runs: the flow is meaningless but a few pixels long and finite. Convolutions get
    variance 1/fan-in (flow heads 1/400 of it, so that the flow does not run away), norms about the identity.
    """
    g = np.random.Generator(np.random.PCG64(seed))
    state = net.state_dict()
    for key, value in sorted(state.items()):
        if key.endswith("num_batches_tracked"):
            continue
        draw = g.standard_normal(tuple(value.shape))
        if value.ndim > 1:
            gain = 0.05 if re.search(r"flow_head\.(conv2|2)\.", key) else 1.0
            draw *= gain / np.sqrt(np.prod(value.shape[1:]))
        elif key.endswith("running_var"):
            draw = 1 + 0.1 * np.abs(draw)
        elif key.endswith((".weight", ".gamma")):
            draw = 1 + 0.1 * draw
        else:
            draw = 0.01 * draw
        state[key] = torch.from_numpy(np.asarray(draw, np.float32))
    net.load_state_dict(state, strict=True)
    return f"random:{seed}"

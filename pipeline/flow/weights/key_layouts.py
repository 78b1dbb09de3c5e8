"""How published checkpoints name the parameters that the modules here name after the official RAFT.

A layout turns our key into the file's key. `official` is the layout of princeton-vl/RAFT,
`torchvision` that of its port and of the SMURF port, `sea-raft` that of princeton-vl/SEA-RAFT.
A few files hold the norm of a projection twice, under two names: the alias.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from pipeline.flow.networks.build import build_network

_Rules = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]

_TORCHVISION: _Rules = (
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (r"^(\w+_encoder)\.conv1\.", r"\1.convnormrelu.0."),
    (r"^(\w+_encoder)\.norm1\.", r"\1.convnormrelu.1."),
    (r"^(\w+_encoder)\.conv2\.", r"\1.conv."),
    (r"(layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."),
    (r"(layer\d\.\d)\.norm(\d)\.", r"\1.convnormrelu\2.1."),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"^update_block\.encoder\.convc(\d)\.", r"update_block.motion_encoder.convcorr\1.0."),
    (r"^update_block\.encoder\.convf(\d)\.", r"update_block.motion_encoder.convflow\1.0."),
    (
        r"^update_block\.gru\.conv([zrq])(\d?)\.",
        lambda m: f"update_block.recurrent_block.convgru{m[2] or 1}.conv{m[1]}.",
    ),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
)
_SEA_RAFT: _Rules = (
    (r"^([fc]net)\.norm1\.", r"\1.bn1."),
    (r"^([fc]net)\.conv2\.", r"\1.final_conv."),
    (r"(layer\d\.\d)\.norm(\d)\.", r"\1.bn\2."),
)


@dataclass(frozen=True)
class Layout:
    """rules: applied in order to our key. alias: second name of `downsample.1`, None where there is none."""

    name: str
    rules: _Rules
    alias: str | None

    def rename(self, key: str) -> str:
        """The file's name of our parameter `key`."""
        for pattern, replacement in self.rules:
            key = re.sub(pattern, replacement, key)
        return key

    def alias_of(self, file_key: str) -> str | None:
        """The other name under which the file may hold `file_key`."""
        if self.alias is None or ".downsample.1." not in file_key:
            return None
        return file_key.replace(".downsample.1.", f".{self.alias}.")


LAYOUTS = {
    "official": Layout("official", (), "norm3"),
    "torchvision": Layout("torchvision", _TORCHVISION, None),
    "sea-raft": Layout("sea-raft", _SEA_RAFT, "bn3"),
}


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    """Our keys and shapes of the network `name`, found without allocating its parameters."""
    with torch.device("meta"):
        net = build_network(name)
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


def expected(name: str, layout: Layout) -> dict[str, tuple[int, ...]]:
    """File keys and shapes of the network `name` in `layout`, aliases left out."""
    return {layout.rename(key): shape for key, shape in shapes_of(name).items()}


def without_aliases(layout: Layout, keys: Mapping[str, object], wanted: Mapping[str, object]) -> dict[str, str]:
    """Which of the file's keys stands for each wanted key: the key itself, else its alias where only that is there."""
    found = {}
    for key in wanted:
        alias = layout.alias_of(key)
        if key in keys:
            found[key] = key
        elif alias is not None and alias in keys:
            found[key] = alias
    return found

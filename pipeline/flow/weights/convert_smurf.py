"""The published SMURF checkpoint (TensorFlow 2) → the PyTorch file that `smurf` loads.

Variables of `feature_model` and `flow_model` are renamed, convolution kernels turned from
rows-columns-inputs-outputs to outputs-inputs-rows-columns; everything else (optimizer, counters)
is left behind. The names written are those of the SMURF port.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.flow.weights.key_layouts import LAYOUTS, expected
from pipeline.flow.weights.tf_bundle import checkpoint_prefix, read_tensors
from shards.files import atomic_file

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_RENAMED = (
    (r"^feature_model/([fc]net)/", r"\1/"),
    (r"^flow_model/update_block/", "update_block/"),
    (r"/downsample/layer_with_weights-0/", "/downsample/0/"),
    (r"^update_block/mask/layer_with_weights-0/", "update_block/mask/0/"),
    (r"^update_block/mask/layer_with_weights-1/", "update_block/mask/2/"),
    (r"/layer_with_weights-(\d+)/", r"/\1/"),
    (r"/kernel$", "/weight"),
)


def key_of(variable: str) -> str | None:
    """The port's key of a TensorFlow variable; None for variables that are not the network's."""
    if not variable.endswith(_SUFFIX) or not re.match(r"(feature_model/[fc]net|flow_model/update_block)/", variable):
        return None
    name = variable.removesuffix(_SUFFIX)
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return LAYOUTS["torchvision"].rename(name.replace("/", "."))


def convert(checkpoint: Path, target: Path) -> int:
    """Write `target` (.pt) from a TensorFlow checkpoint and return the number of tensors.

    Raises ValueError naming the first keys that are missing or misshapen; variables of other names are ignored.
    """
    prefix = checkpoint_prefix(checkpoint)
    wanted = expected("smurf", LAYOUTS["torchvision"])
    tensors: dict[str, Tensor] = {}
    for variable, value in read_tensors(prefix).items():
        key = key_of(variable)
        if key in wanted:
            if value.ndim == 4:
                value = value.transpose(3, 2, 0, 1)
            tensors[key] = torch.from_numpy(np.array(value, np.float32, order="C"))
    missing = sorted(set(wanted) - set(tensors))
    misshapen = sorted(key for key, value in tensors.items() if tuple(value.shape) != wanted[key])
    if missing or misshapen:
        raise ValueError(
            f"{prefix} is not a SMURF checkpoint: {len(missing)} keys missing ({', '.join(missing[:3])}), "
            f"{len(misshapen)} of another shape ({', '.join(misshapen[:3])})"
        )
    with atomic_file(target) as stream:
        torch.save({key: tensors[key] for key in sorted(tensors)}, stream)
    return len(tensors)

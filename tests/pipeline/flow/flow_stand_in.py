"""Stand-in weights and frames for the flow networks, and what the parity fixtures keep of them.

The fixtures hold outputs of the official networks for weights that anybody can draw again: one
PCG64 stream per network, the keys of the official state dict in sorted order, a standard normal each
(none for batch counters and for a projection's norm under its second name), then by kind of
key: kernels n·gain/√fan-in, norm weights 1 + n/10, running variances 1 + |n|/10, running
means n/10, biases n/100, all in float32.
"""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.flow.networks.build import build_network
from pipeline.flow.networks.network import FlowNetwork
from pipeline.flow.weights.key_layouts import LAYOUTS, expected
from pipeline.window import Window

# Our name → name of the fixture, layout of the official state dict, seed of its weights.
FIXTURES = {
    "raft": ("raft", "official"),
    "raft-small": ("raft_small", "official"),
    "sea-raft-s": ("searaft_s", "sea-raft"),
    "sea-raft-m": ("searaft_m", "sea-raft"),
    "smurf": ("smurf", "torchvision"),
}
_GAINS = (
    (r"^flow_head\.2\.weight|flow_head\.conv2\.weight", 0.25),
    (r"^upsample_weight\.2\.weight|mask\.2\.weight|^mask_predictor\.conv\.weight", 4.0),
    (r"^[cf]net\.final_conv\.weight", 0.5),
)


def official_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the official state dict, aliases included."""
    layout = LAYOUTS[FIXTURES[name][1]]
    shapes = expected(name, layout)
    aliases = {alias: shape for key, shape in shapes.items() if (alias := layout.alias_of(key)) is not None}
    return {**shapes, **aliases}


def stand_in_state(name: str, seed: int) -> dict[str, Tensor]:
    """The official state dict with drawn values."""
    shapes, layout = official_shapes(name), LAYOUTS[FIXTURES[name][1]]
    aliases = {alias: key for key in shapes if (alias := layout.alias_of(key)) is not None}
    stream = np.random.Generator(np.random.PCG64(seed))
    state = {}
    for key in sorted(shapes):
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros(shapes[key], dtype=torch.int64)
        elif key not in aliases:
            state[key] = torch.from_numpy(_values(key, stream.standard_normal(shapes[key], dtype=np.float32)))
    state.update({alias: state[key].clone() for alias, key in aliases.items() if alias not in state})
    return state


def _values(key: str, n: NDArray[np.float32]) -> NDArray[np.float32]:
    one, tenth = np.float32(1), np.float32(0.1)
    if key.endswith("running_mean"):
        return tenth * n
    if key.endswith("running_var"):
        return one + tenth * np.abs(n)
    if n.ndim > 1:
        gain = next((value for pattern, value in _GAINS if re.search(pattern, key)), 1.0)
        return n * np.float32(gain / math.sqrt(math.prod(n.shape[1:])))
    if key.endswith((".weight", ".gamma")):
        return one + tenth * n
    return np.float32(0.01) * n


def fingerprint(state: dict[str, Tensor]) -> str:
    """sha256 over names and float values in sorted order."""
    digest = hashlib.sha256()
    for key in sorted(state):
        if state[key].is_floating_point():
            digest.update(key.encode() + state[key].numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def stand_in_net(name: str, seed: int) -> FlowNetwork:
    """The network with stand-in weights, through the same renaming that a checkpoint takes."""
    state, layout = stand_in_state(name, seed), LAYOUTS[FIXTURES[name][1]]
    net = build_network(name)
    net.load_state_dict({key: state[layout.rename(key)] for key in net.state_dict()})
    return net.eval()


def moving_pair(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """[2, H, W, 3]: twelve sine waves per channel, the second frame displaced by a smooth field of a few pixels."""
    stream = np.random.Generator(np.random.PCG64(seed))
    wave, q = stream.random((3, 12, 4)), stream.random(4)
    y, x = np.meshgrid(np.arange(float(height)), np.arange(float(width)), indexing="ij")
    bump = np.exp(-((x - width / 2) ** 2 + (y - height / 2) ** 2) / (0.2 * min(height, width)) ** 2)
    u = 6 * (q[0] - 0.5) + 3 * np.sin(2 * np.pi * (y / height + q[1])) + 4 * bump
    v = 5 * (q[2] - 0.5) + 2 * np.cos(2 * np.pi * (x / width + q[3])) - 3 * bump
    return np.stack([_texture(wave, x, y), _texture(wave, x - u, y - v)])


def _texture(wave: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint8]:
    image = np.full((*x.shape, 3), 127.5)
    for channel in range(3):
        for k in range(12):
            length, angle = 7 * 1.35**k, 2 * np.pi * wave[channel, k, 1]
            turns = math.cos(angle) / length * x + math.sin(angle) / length * y + wave[channel, k, 0]
            image[..., channel] += (7 + 2.2 * k) * np.sin(2 * np.pi * turns)
    return np.floor(np.clip(image, 0, 255) + 0.5).astype(np.uint8)


def as_frames(frames_fhwc: NDArray[np.uint8]) -> Tensor:
    """[F, H, W, 3] uint8 → [F, 3, H, W] tensor."""
    return torch.from_numpy(np.ascontiguousarray(frames_fhwc)).permute(0, 3, 1, 2)


def reduced(name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the fixtures in the repository keep of an array of the full ones. Strides are odd: every sub-pixel phase stays."""
    kind = name.split(".")[1]
    if kind == "flow" and name.startswith("odd"):
        return array[:, ::3, ::3]
    if kind in ("flow", "flow_it1", "flow_init", "info", "heatmap"):
        return array[..., ::5, ::5]
    if kind in ("fmap1", "fmap2", "hidden0", "context"):
        return array[::4]
    if kind.startswith("mask"):
        return array[::5]
    if kind == "lowflow":
        return array[[0, 1, -1]]
    return array


def window_of(frames_fhwc: NDArray[np.uint8], name: str = "a") -> Window:
    """A window whose anchor is the first frame and whose neighbours are the others."""
    indices = tuple(range(1, len(frames_fhwc)))
    times = tuple(float(i) for i in indices)
    return Window(name, Path(name), indices, 0, indices, 0.0, times, frames_fhwc[0], frames_fhwc[1:])


def clip(frames: int, side: int, seed: int) -> NDArray[np.uint8]:
    """[frames, side, side, 3]: a moving texture's first frames and unrelated ones after them."""
    pairs = [moving_pair(side, side, seed + i) for i in range(-(-frames // 2))]
    return np.concatenate(pairs)[:frames]


ROUNDING = 1e-6
"""Largest relative difference that the order of float32 sums may make; at most 3.2e-7 was measured on a CPU."""


def relative_difference(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Largest difference, as a share of the largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())

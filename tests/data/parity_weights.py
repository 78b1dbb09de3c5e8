"""Deterministic weights and inputs for the parity fixtures (no weights are shipped).

Everything is drawn from numpy's PCG64.  Rules, in order of precedence, for a
state-dict entry ``key`` of shape ``s`` with standard normals ``n``:

  last name component in {pos_embed, cls_token, mask_token, register_tokens} : 0.02 * n
  last name component == "queries"                                           : n
  last name component == "gamma" (LayerScale)                                : 0.1 + 0.02 * n
  last name component ends with "bias"                                       : 0.01 * n
  1-D (norm) weights                                                         : 1 + 0.1 * n
  everything else (>= 2-D conv / conv-transpose / linear weights)            : n / sqrt(prod(s[1:]))

One generator per state dict; keys are visited in Python ``sorted()`` order (plain
string order, so "blocks.10" precedes "blocks.2").  Draw float64, scale, cast to float32.
The key list must be the complete official one (``keys_<variant>.json``), including
entries a re-implementation may not use (mask_token, refinenet4.resConfUnit1.*):
skipping one would shift the stream for all later keys.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TOKENS = {"pos_embed", "cls_token", "mask_token", "register_tokens"}


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(int(seed)))


def scale_rule(key: str, shape: tuple[int, ...], n: NDArray[np.float64]) -> NDArray[np.float64]:
    last = key.rsplit(".", 1)[-1]
    if last in TOKENS:
        return 0.02 * n
    if last == "queries":
        return n
    if last == "gamma":
        return 0.1 + 0.02 * n
    if last.endswith("bias"):
        return 0.01 * n
    if len(shape) == 1:
        return 1.0 + 0.1 * n
    return n / math.sqrt(math.prod(shape[1:]))


def make_state_dict(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, NDArray[np.float32]]:
    """shapes: {key: shape}.  Returns {key: float32 ndarray} in sorted key order."""
    g = rng(seed)
    return {
        k: np.asarray(scale_rule(k, tuple(shapes[k]), g.standard_normal(tuple(shapes[k]))), np.float32)
        for k in sorted(shapes)
    }


def load_shapes(json_path: str | Path) -> dict[str, tuple[int, ...]]:
    with open(json_path) as f:
        return {k: tuple(v) for k, v in json.load(f).items()}


def normals(seed: int, *shape: int) -> NDArray[np.float32]:
    """Plain float32 standard normals."""
    return rng(seed).standard_normal(shape).astype(np.float32)


def image(seed: int, b: int, h: int, w: int) -> NDArray[np.float32]:
    """ImageNet-normalised-looking input: smooth waves plus noise, [b, 3, h, w] float32."""
    g = rng(seed)
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    out = np.empty((b, 3, h, w))
    for i in range(b):
        for c in range(3):
            fy, fx, ph = g.uniform(0.5, 6.0), g.uniform(0.5, 6.0), g.uniform(0, 2 * np.pi)
            out[i, c] = np.sin(2 * np.pi * (fy * y / h + fx * x / w) + ph)
    out += 0.5 * g.standard_normal(out.shape)
    return out.astype(np.float32)


def smooth_flow(seed: int, b: int, h: int, w: int, amp: float = 0.05) -> NDArray[np.float32]:
    """Piecewise-smooth flow in [-1, 1] image units with a moving square, [b, 2, h, w] float32."""
    g = rng(seed)
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    out = np.empty((b, 2, h, w))
    for i in range(b):
        for c in range(2):
            a0, a1, a2, ph = g.standard_normal(4)
            out[i, c] = amp * (0.3 * a0 + 0.3 * a1 * x / w + 0.2 * a2 * np.sin(4 * y / h + ph))
        top, left = int(h * g.uniform(0.1, 0.4)), int(w * g.uniform(0.1, 0.4))
        out[i, :, top : top + h // 3, left : left + w // 3] += amp * g.standard_normal((2, 1, 1))
    out += 0.02 * amp * g.standard_normal(out.shape)
    return out.astype(np.float32)


def checksum(sd: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    """Order-independent fingerprint of a state dict: {key: (sum, sum of squares)} condensed to two floats."""
    s = sum(float(np.asarray(v, np.float64).sum()) for v in sd.values())
    q = sum(float((np.asarray(v, np.float64) ** 2).sum()) for v in sd.values())
    return np.array([s, q], np.float64)

"""The published vision transformers once more, written out head by head in float64 from their description: what ours is held against.

DINOv3 (its repository's model definition and hub entries): tokens CLS, storage, patches; a patch's row and column, each from -1 to 1 at
patch middles; angles 2 pi place / period, periods 100^(4k/h); channels (i, i + h/2) of a head are one complex number that the
angle turns, rows first; key biases masked; LayerNorm eps 1e-5. DINOv2 with registers: the position table resized to the grid
with antialiasing and added to CLS and patches, then registers put in between; eps 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

Array = np.ndarray
erf = np.vectorize(math.erf)


def reference_hooks(
    state: Mapping[str, torch.Tensor], images: torch.Tensor, heads: int, hooks: tuple[int, ...], extra: str, eps: float
) -> tuple[list[Array], Array]:
    """(raw tokens of the hooked blocks, normed tokens of the last one), each [B, tokens, D]."""
    w = {key: value.double().numpy() for key, value in state.items()}
    patch = w["patch_embed.proj.weight"].shape[-1]
    gh, gw = images.shape[-2] // patch, images.shape[-1] // patch
    pixels = images.double().numpy().reshape(len(images), 3, gh, patch, gw, patch)
    kernel = w["patch_embed.proj.weight"]
    patches = np.einsum("bcyixj,dcij->byxd", pixels, kernel) + w["patch_embed.proj.bias"]
    patches = patches.reshape(len(images), gh * gw, -1)
    cls = np.repeat(w["cls_token"], len(images), axis=0)
    if "pos_embed" in w:
        table = added_positions(state["pos_embed"], gh, gw)
        cls, patches = cls + table[:, :1], patches + table[:, 1:]
    x = np.concatenate((cls, np.repeat(w[extra], len(images), axis=0), patches), axis=1)
    first_patch = 1 + w[extra].shape[1]
    seen = []
    for number in range(max(hooks) + 1):
        b = {
            key.removeprefix(f"blocks.{number}."): value
            for key, value in w.items()
            if key.startswith(f"blocks.{number}.")
        }
        periods = w.get("rope_embed.periods")
        x = x + b["ls1.gamma"] * attention(
            layer_norm(x, b["norm1.weight"], b["norm1.bias"], eps), b, heads, periods, first_patch, gw
        )
        hidden = layer_norm(x, b["norm2.weight"], b["norm2.bias"], eps) @ b["mlp.fc1.weight"].T + b["mlp.fc1.bias"]
        hidden = 0.5 * hidden * (1 + erf(hidden / math.sqrt(2)))
        x = x + b["ls2.gamma"] * (hidden @ b["mlp.fc2.weight"].T + b["mlp.fc2.bias"])
        if number in hooks:
            seen.append(x)
    return seen, layer_norm(x, w["norm.weight"], w["norm.bias"], eps)


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def attention(x: Array, b: Mapping[str, Array], heads: int, periods: Array | None, first_patch: int, gw: int) -> Array:
    batch, count, dim = x.shape
    h = dim // heads
    bias = b["attn.qkv.bias"] * b.get("attn.qkv.bias_mask", 1.0)
    qkv = x @ b["attn.qkv.weight"].T + bias
    out = np.empty_like(x)
    for image in range(batch):
        for head in range(heads):
            q, k, v = (qkv[image, :, part * dim + head * h : part * dim + (head + 1) * h] for part in range(3))
            if periods is not None:
                q, k = (turned(t, periods, first_patch, (count - first_patch) // gw, gw) for t in (q, k))
            scores = q @ k.T / math.sqrt(h)
            weights = np.exp(scores - scores.max(1, keepdims=True))
            out[image, :, head * h : (head + 1) * h] = weights / weights.sum(1, keepdims=True) @ v
    return out @ b["attn.proj.weight"].T + b["attn.proj.bias"]


def turned(x: Array, periods: Array, first_patch: int, gh: int, gw: int) -> Array:
    half = x.shape[1] // 2
    pairs = x[:, :half] + 1j * x[:, half:]
    for row in range(gh):
        for column in range(gw):
            places = ((2 * row + 1) / gh - 1, (2 * column + 1) / gw - 1)
            angles = np.concatenate([2 * math.pi * place / periods for place in places])
            pairs[first_patch + row * gw + column] *= np.exp(1j * angles)
    return np.concatenate((pairs.real, pairs.imag), axis=1)


def added_positions(position: torch.Tensor, gh: int, gw: int) -> Array:
    side = math.isqrt(position.shape[1] - 1)
    table = position[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    if (gh, gw) != (side, side):
        table = F.interpolate(table, size=(gh, gw), mode="bicubic", antialias=True)
    return torch.cat((position[:, :1], table.permute(0, 2, 3, 1).flatten(1, 2)), dim=1).double().numpy()

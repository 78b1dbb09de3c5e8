"""Features and flow as pictures: the first three principal components as RGB, motion as hue and saturation.

Maps of shape [c, h, w] come in, uint8 RGB of shape [h, w, 3] goes out, for the training log and the command line.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.flowfeat import IMAGENET_MEAN, IMAGENET_STD

Picture = NDArray[np.uint8]
_CLIP = 0.01  # share of pixels cut off at either end of each component, so that outliers do not wash the picture out
_GAP_PX = 2


def pca_picture(features_chw: Tensor) -> Picture:
    """First three principal components over the pixels of one map, each stretched to 0..255. Signs are fixed, so equal
    features give equal pictures; colours of different pictures are not comparable."""
    h, w = features_chw.shape[1:]
    x_nc = features_chw.detach().float().cpu().flatten(1).T.double()
    x_nc = x_nc - x_nc.mean(dim=0)
    _, axes = torch.linalg.eigh(x_nc.T @ x_nc / len(x_nc))
    axes = axes[:, -3:].flip(1)
    axes = axes * torch.where(axes.gather(0, axes.abs().argmax(0, keepdim=True)) < 0, -1.0, 1.0)
    scores = (x_nc @ axes).numpy()
    low, high = np.quantile(scores, [_CLIP, 1 - _CLIP], axis=0)
    rgb = np.zeros((len(scores), 3))
    rgb[:, : scores.shape[1]] = (scores - low) / np.maximum(high - low, 1e-12)
    return np.asarray(np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8).reshape(h, w, 3)


def flow_picture(flow_2hw: Tensor | NDArray[np.float32], largest: float) -> Picture:
    """Direction as hue, length as saturation, full at `largest` (same unit as the flow); white is no motion."""
    dx, dy = np.asarray(flow_2hw, np.float64)
    hue = (np.arctan2(dy, dx) / (2 * np.pi)) % 1.0
    saturation = np.clip(np.hypot(dx, dy) / max(largest, 1e-12), 0, 1)
    distance = np.abs(6 * hue[..., None] - np.array([3.0, 2.0, 4.0]))
    pure = np.clip(np.array([-1.0, 2.0, 2.0]) + distance * np.array([1.0, -1.0, -1.0]), 0, 1)
    return np.asarray((1 - saturation[..., None] * (1 - pure)) * 255 + 0.5).astype(np.uint8)


def photo(image_chw: Tensor) -> Picture:
    """An ImageNet-normalised image back as RGB."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    rgb = (image_chw.detach().float().cpu() * std + mean).clamp(0, 1) * 255
    return (rgb + 0.5).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def table(rows: list[list[Picture]]) -> Picture:
    """Equal-sized pictures in rows and columns with a white gap between them."""
    padded = [[np.pad(p, ((0, _GAP_PX), (0, _GAP_PX), (0, 0)), constant_values=255) for p in row] for row in rows]
    return np.concatenate([np.concatenate(row, axis=1) for row in padded], axis=0)[:-_GAP_PX, :-_GAP_PX]


def training_table(
    image1: Tensor, image2: Tensor, u2: Tensor, predicted: Tensor, student: Tensor, count: int = 4
) -> Picture:
    """A row per sample: teacher's view, student's view, its flow, the predicted flow (same scale), PCA of the features."""
    rows = []
    for i in range(min(count, len(predicted))):
        target, guess = u2[i].float().cpu().numpy(), predicted[i].float().cpu().numpy()
        largest = float(np.quantile(np.hypot(*target), 0.99))
        flows = [flow_picture(target, largest), flow_picture(guess, largest)]
        rows.append([photo(image1[i]), photo(image2[i]), *flows, pca_picture(student[i])])
    return table(rows)

"""Pictures of a training run: views, flows and features of a few samples as one table.

Maps of shape [c, h, w] come in, uint8 RGB of shape [h, w, 3] goes out, for the training log. How flow and features become
colours is the same in every stage: `common.flow_colors`, `common.feature_colors`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from common.feature_colors import pca_picture
from common.flow_colors import flow_to_color
from trainer.images import denormalise

Picture = NDArray[np.uint8]
_GAP_PX = 2


def photo(image_chw: Tensor) -> Picture:
    """An ImageNet-normalised image back as RGB."""
    return denormalise(image_chw).numpy()


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
        largest = max(float(np.quantile(np.hypot(*target), 0.99)), 1e-6)
        flows = [flow_to_color(target, largest), flow_to_color(guess, largest)]
        rows.append([photo(image1[i]), photo(image2[i]), *flows, pca_picture(student[i])])
    return table(rows)

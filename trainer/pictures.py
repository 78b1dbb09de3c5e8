"""Pictures of a training run: views, flows and features of a few samples as one table.

Maps of shape [c, h, w] come in, uint8 RGB of shape [h, w, 3] goes out, for the training log: columns have headings, and below
them lies the colour wheel of flow. How flow and features become colours is the same in every stage: `common.flow_colors`,
`common.feature_colors`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from common.feature_colors import pca_picture
from common.flow_colors import flow_to_color, wheel_picture
from trainer.images import denormalise

Picture = NDArray[np.uint8]
HEADINGS = ("teacher's view", "student's view", "student's flow", "flow read out", "features (PCA)")
LEGEND = (
    "flow: where a pixel moves against the picture's mean, as on the wheel",
    "white: with the mean; full colour: what 99 % of the pixels stay below",
)
CELL_PX = 112
"""Smaller pictures are enlarged by a whole factor, so that a heading fits above them."""
HEADING_PX, LEGEND_PX = 16, 48
_GAP_PX = 2


def photo(image_chw: Tensor) -> Picture:
    """An ImageNet-normalised image back as RGB."""
    return denormalise(image_chw).numpy()


def table(rows: list[list[Picture]]) -> Picture:
    """Equal-sized pictures in rows and columns with a white gap between them."""
    padded = [[np.pad(p, ((0, _GAP_PX), (0, _GAP_PX), (0, 0)), constant_values=255) for p in row] for row in rows]
    return np.concatenate([np.concatenate(row, axis=1) for row in padded], axis=0)[:-_GAP_PX, :-_GAP_PX]


def labelled(rows: list[list[Picture]], headings: Sequence[str], legend: Sequence[str]) -> Picture:
    """`table` with a heading over each column, and below it the flow's colour wheel beside lines of text."""
    factor = -(-CELL_PX // rows[0][0].shape[1])
    enlarged = table([[p.repeat(factor, 0).repeat(factor, 1) for p in row] for row in rows])
    height, width, _ = enlarged.shape
    sheet = Image.new("RGB", (width, HEADING_PX + height + _GAP_PX + LEGEND_PX), "white")
    sheet.paste(Image.fromarray(enlarged), (0, HEADING_PX))
    sheet.paste(Image.fromarray(wheel_picture(LEGEND_PX)), (0, HEADING_PX + height + _GAP_PX))
    draw = ImageDraw.Draw(sheet)
    for number, heading in enumerate(headings):
        draw.text((number * (width + _GAP_PX) // len(rows[0]), 2), heading, fill="black")
    for number, line in enumerate(legend):
        draw.text((LEGEND_PX + 8, HEADING_PX + height + _GAP_PX + 8 + 16 * number), line, fill="black")
    return np.asarray(sheet)


def training_table(
    image1: Tensor, image2: Tensor, u2: Tensor, predicted: Tensor, student: Tensor, count: int = 4
) -> Picture:
    """A row per sample: teacher's view, student's view, its flow, the predicted flow (same scale), PCA of the features.

    u2, predicted: [b, 2 K, h, w]; of several neighbours the first is shown.
    """
    rows = []
    for i in range(min(count, len(predicted))):
        target, guess = (flow[i, :2].float().cpu().numpy() for flow in (u2, predicted))
        largest = max(float(np.quantile(np.hypot(*target), 0.99)), 1e-6)
        flows = [flow_to_color(target, largest), flow_to_color(guess, largest)]
        rows.append([photo(image1[i]), photo(image2[i]), *flows, pca_picture(student[i])])
    return labelled(rows, HEADINGS, LEGEND)

"""What answers score that look at no feature, where that takes more than a line: `Task.chance` of segmentation and depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from probes.data import rgbd
from probes.data.segmentation import IGNORED, SegmentationData
from probes.metrics.segmentation import ConfusionMatrix
from probes.task import Row
from probes.tasks.segmentation_run import rows_of

MOST_READ = 200
"""Training pictures whose depth makes the mean; more change it little and take minutes on a large set."""
Floats = NDArray[np.float32]
Scores = Callable[[Floats, Floats, rgbd.Pair, float], dict[str, float]]
Item = TypeVar("Item")


def most_frequent_class(data: SegmentationData, side_px: int) -> list[Row]:
    """Rows of the best constant answer: the class that most pixels of the scored split have. Nothing where none has any."""
    matrix = ConfusionMatrix(len(data.classes))
    pixels = np.zeros(len(data.classes), np.int64)
    for index in range(len(data.scored)):
        labels = data.scored.labels(index, side_px)
        pixels += np.bincount(labels[labels != IGNORED], minlength=len(data.classes))
    if not pixels.any():
        return []
    matrix.counts[:, pixels.argmax()] = pixels
    return rows_of(matrix, data.classes)


def evenly(items: Sequence[Item]) -> list[Item]:
    """At most `MOST_READ`, spread over all."""
    picked = np.unique(np.linspace(0, len(items) - 1, min(MOST_READ, len(items))).round().astype(int))
    return [items[index] for index in picked]


def constant_depth(
    test: Sequence[rgbd.Pair], measured: Callable[[rgbd.Pair], Floats], depth_m: float, scores: Scores
) -> list[Row]:
    """A row per test picture in which the sensor measured something, for one depth everywhere."""
    rows = []
    for pair in test:
        truth = measured(pair)
        values = scores(np.full_like(truth, depth_m), truth, pair, depth_m)
        if values:
            rows.append(Row(pair.name, values))
    return rows

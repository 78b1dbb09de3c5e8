"""Semantic segmentation scores from one confusion matrix over a whole data set: mIoU, pixel accuracy, IoU of every class.

Label maps come in picture by picture and are counted at once, so a data set of any size needs classes^2 numbers; matrices of
several processes add up (`+`). With counts n_ij of pixels of class i predicted as j:

    IoU_c = n_cc / (sum_j n_cj + sum_i n_ic - n_cc)        mIoU = mean of IoU_c        pixel accuracy = sum_c n_cc / sum_ij n_ij

(Everingham et al., IJCV 2010; the 27 classes of COCO-Stuff as FlowFeat scores them, NeurIPS 2025, section B.3.) Pixels whose
true label is ignored don't count, whatever was predicted there. A class that occurs neither in the truth nor in a prediction
has no IoU (NaN) and no share in the mean; `classes_scored` says how many have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORED = 255

Labels = NDArray[np.integer]


@dataclass(frozen=True)
class SegmentationScores:
    """Shares in [0, 1]; `iou_by_class` has NaN for a class that never occurs."""

    mean_iou: float
    pixel_accuracy: float
    iou_by_class: tuple[float, ...]
    classes_scored: int
    pixels: int


class ConfusionMatrix:
    """Counts int64 [true class, predicted class] of the pixels seen so far."""

    def __init__(self, classes: int, ignored: Sequence[int] = (IGNORED,)) -> None:
        if classes < 1:
            raise ValueError(f"a segmentation needs at least one class, not {classes}")
        self.classes = classes
        self.ignored = tuple(ignored)
        self.counts = np.zeros((classes, classes), dtype=np.int64)

    def add(self, truth: Labels, predicted: Labels) -> None:
        """Count one picture, or a stack of them; both label maps have the same shape.

        Raises
        ------
        ValueError: other shapes, or a label outside the class list (nothing is counted then).
        """
        if truth.shape != predicted.shape:
            raise ValueError(f"a prediction of {predicted.shape} for labels of {truth.shape}: resize it first")
        counted = ~np.isin(truth, self.ignored)
        rows, columns = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
        self._check(rows, "label")
        self._check(columns, "prediction")
        pairs = np.bincount(rows * self.classes + columns, minlength=self.classes**2)
        self.counts += pairs.reshape(self.classes, self.classes)

    def _check(self, labels: NDArray[np.int64], name: str) -> None:
        outside = labels[(labels < 0) | (labels >= self.classes)]
        if outside.size:
            raise ValueError(
                f"{name} {int(outside[0])} at {outside.size} pixels is outside the class list (0 to {self.classes - 1}); "
                f"ignored labels: {', '.join(map(str, self.ignored)) or 'none'}"
            )

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """The counts of both, for pictures that several processes shared among them."""
        if (self.classes, self.ignored) != (other.classes, other.ignored):
            raise ValueError(f"matrices of {self.classes} and {other.classes} classes do not add up")
        total = ConfusionMatrix(self.classes, self.ignored)
        total.counts = self.counts + other.counts
        return total

    def scores(self) -> SegmentationScores:
        """mIoU, pixel accuracy and IoU by class.

        Raises
        ------
        ValueError: no pixel was counted.
        """
        pixels = int(self.counts.sum())
        if pixels == 0:
            raise ValueError("no pixel was scored: every label is ignored, or there is no picture")
        hits = self.counts.diagonal()
        union = self.counts.sum(axis=1) + self.counts.sum(axis=0) - hits
        occurs = union > 0
        iou = np.where(occurs, hits / np.where(occurs, union, 1), np.nan)
        return SegmentationScores(
            mean_iou=float(iou[occurs].mean()),
            pixel_accuracy=float(hits.sum() / pixels),
            iou_by_class=tuple(float(share) for share in iou),
            classes_scored=int(occurs.sum()),
            pixels=pixels,
        )

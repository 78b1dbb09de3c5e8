"""Segmentation scores against counting by sets, by hand, and mutants."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest

from probes.metrics import segmentation
from tests.probes.mutants import Check, noticed


def check_by_hand(module: ModuleType) -> None:
    """3 of class 0 (one taken for 1), 2 of class 1 (right), 1 of class 2 (taken for 0); class 3 never occurs."""
    matrix = module.ConfusionMatrix(4)
    matrix.add(np.array([[0, 0, 0, 1], [1, 2, 255, 255]], np.uint8), np.array([[0, 0, 1, 1], [1, 0, 3, 200]], np.uint8))
    scores = matrix.scores()
    assert scores.iou_by_class[:3] == (2 / 4, 2 / 3, 0.0)
    assert math.isnan(scores.iou_by_class[3])
    assert scores.mean_iou == pytest.approx((2 / 4 + 2 / 3) / 3)
    assert scores.pixel_accuracy == 4 / 6
    assert (scores.classes_scored, scores.pixels) == (3, 6)
    assert (matrix.counts[0, 1], matrix.counts[1, 0]) == (1, 0)
    many = module.ConfusionMatrix(200)
    many.add(np.array([[199]], np.uint8), np.array([[198]], np.uint8))  # 199 * 200 exceeds uint8
    assert many.counts[199, 198] == 1


def check_against_sets(module: ModuleType) -> None:
    """IoU by its name, over a stream of pictures of several sizes and types."""
    random = np.random.default_rng(4)
    pairs = []
    matrix = module.ConfusionMatrix(5, ignored=(255, 7))
    for size, kind in (((6, 9), np.uint8), ((1, 40), np.int64), ((2, 5, 5), np.uint16)):
        truth = random.choice([0, 1, 2, 3, 4, 7, 255], size).astype(kind)
        predicted = random.integers(0, 4, size).astype(kind)
        matrix.add(truth, predicted)
        pairs += [(t, p) for t, p in zip(truth.flat, predicted.flat, strict=True) if t not in (7, 255)]
    scores = matrix.scores()
    for label in range(5):
        a = {i for i, (t, _) in enumerate(pairs) if t == label}
        b = {i for i, (_, p) in enumerate(pairs) if p == label}
        assert scores.iou_by_class[label] == pytest.approx(len(a & b) / len(a | b))
    assert scores.mean_iou == pytest.approx(sum(scores.iou_by_class) / 5)
    assert scores.pixel_accuracy == pytest.approx(sum(t == p for t, p in pairs) / len(pairs))


def check_processes_add_up(module: ModuleType) -> None:
    random = np.random.default_rng(5)
    halves = [module.ConfusionMatrix(3), module.ConfusionMatrix(3)]
    whole = module.ConfusionMatrix(3)
    for half in halves:
        truth, predicted = random.integers(0, 3, (2, 8, 8))
        half.add(truth, predicted)
        whole.add(truth, predicted)
    assert np.array_equal((halves[0] + halves[1]).counts, whole.counts)
    assert (halves[0] + halves[1]).scores() == whole.scores()
    for other in (module.ConfusionMatrix(4), module.ConfusionMatrix(3, ignored=())):
        with pytest.raises(ValueError, match="do not add up"):
            whole + other


def check_bad_labels_are_named_and_not_counted(module: ModuleType) -> None:
    matrix = module.ConfusionMatrix(3)
    good = np.zeros((2, 2), np.uint8)
    for truth, predicted, words in (
        (good + 3, good, r"label 3 at 4 pixels is outside the class list \(0 to 2\); ignored labels: 255"),
        (good, good + 255, "prediction 255 at 4 pixels"),
        (good.astype(np.int8) - 1, good, "label -1 at 4 pixels"),
        (good, good[:1], r"prediction of \(1, 2\) for labels of \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=words):
            matrix.add(truth, predicted)
    matrix.add(good + 255, good)
    with pytest.raises(ValueError, match="no pixel was scored"):
        matrix.scores()
    with pytest.raises(ValueError, match="at least one class"):
        module.ConfusionMatrix(0)


def check_many_pixels(module: ModuleType) -> None:
    """Counts stay exact far beyond 2^32 pixels."""
    matrix = module.ConfusionMatrix(1)
    matrix.add(np.zeros(1, np.uint8), np.zeros(1, np.uint8))
    for _ in range(40):
        matrix = matrix + matrix
    assert matrix.scores().pixels == 2**40


CHECKS = (
    check_by_hand, check_against_sets, check_processes_add_up, check_bad_labels_are_named_and_not_counted, check_many_pixels,
)  # fmt: skip

MUTATIONS = [
    ("rows * self.classes + columns", "columns * self.classes + rows"),
    ("self.counts.sum(axis=1) + self.counts.sum(axis=0) - hits", "self.counts.sum(axis=1) + self.counts.sum(axis=0)"),
    ("self.counts.sum(axis=1) + self.counts.sum(axis=0) - hits", "self.counts.sum(axis=1)"),
    ("self.counts.sum(axis=1) + self.counts.sum(axis=0) - hits", "self.counts.sum(axis=0)"),
    ("iou[occurs].mean()", "np.nan_to_num(iou).mean()"),
    ("iou[occurs].mean()", "(iou[occurs] @ union[occurs]) / union.sum()"),
    ("np.where(occurs, union, 1), np.nan)", "np.where(occurs, union, 1), 1.0)"),
    ("hits.sum() / pixels", "hits.sum() / union.sum()"),
    ("~np.isin(truth, self.ignored)", "~np.isin(predicted, self.ignored)"),
    ("~np.isin(truth, self.ignored)", "truth != 255"),
    ("self.counts += pairs", "self.counts = pairs"),
    ("(labels < 0) | (labels >= self.classes)", "labels >= self.classes"),
    ("(labels < 0) | (labels >= self.classes)", "labels > self.classes"),
    ('self._check(columns, "prediction")', "pass"),
    ("total.counts = self.counts + other.counts", "total.counts = self.counts"),
    ("truth[counted].astype(np.int64)", "truth[counted]"),
    ("(self.classes, self.ignored) != (other.classes, other.ignored)", "self.classes != other.classes"),
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_segmentation(check: Check) -> None:
    check(segmentation)


@pytest.mark.parametrize(("old", "new"), MUTATIONS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_mutant_is_noticed(old: str, new: str) -> None:
    assert noticed(segmentation, old, new, CHECKS)

"""The segmentation probes from end to end, on colours that any of them can tell apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from probes.cli import main
from probes.data import batching
from probes.data.segmentation_layouts import open_segmentation
from probes.heads.pixel_classifier import PixelClassifier
from probes.metrics.segmentation import ConfusionMatrix
from probes.report.pictures import PictureFolder
from probes.sources.features import Encoding, Features, Source
from probes.task import Context, Row
from probes.tasks.segmentation import AttentionSegmentation, KnnSegmentation, LinearSegmentation, SegmentationTask
from probes.tasks.segmentation_run import Banks, SplitFeatures, TrainedHeads, rows_of
from tests.probes.small_segmentation import labels_of, write_folders

PATCH = 4
VALUES = "head.attention.cross_attn.projv.weight"
SHORT: dict[str, Any] = {"size_px": 64, "iterations": 60, "batch": 3, "learning_rate": 0.1}
TASKS: dict[str, Callable[[Path], SegmentationTask]] = {
    "attention": lambda root: AttentionSegmentation(root=root, **SHORT),
    "linear": lambda root: LinearSegmentation(root=root, **SHORT),
    "knn": lambda root: KnnSegmentation(root=root, size_px=64),
}


class Patches:
    """Tokens are mean colours of patches. passes: how many pictures went through."""

    size_multiple = 2 * PATCH

    def __init__(self) -> None:
        self.passes = 0

    def encode(self, images_bhwc: torch.Tensor) -> Encoding:
        self.passes += len(images_bhwc)
        images = images_bhwc.movedim(-1, 1).float() / 64 - 1.7
        return Encoding(images, torch.nn.functional.avg_pool2d(images, PATCH))


def _eight(images_bchw: torch.Tensor) -> torch.Tensor:
    """Eight channels, as attention heads need."""
    return torch.cat([images_bchw, images_bchw.roll(1, dims=1), images_bchw[:, :2]], dim=1)


def _sources(encoder: Patches | None = None) -> list[Source]:
    encoder = encoder or Patches()
    return [
        Source("encoder", encoder, lambda e: Features(e.low_bdgf)),
        Source("flowfeat", encoder, lambda e: Features(e.low_bdgf, _eight(e.images_bchw))),
    ]


BLIND = Source("flowfeat", Patches(), lambda e: Features(torch.ones_like(e.low_bdgf)))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("segmentation") / "blocks"
    write_folders(root)
    return root


def _context(out: Path, steps: list[int] | None = None) -> Context:
    taken = steps if steps is not None else []
    return Context(torch.device("cpu"), 0, PictureFolder(out, "segmentation", "blocks"), taken.append)


def _evaluate(task: SegmentationTask, out: Path, sources: list[Source]) -> dict[str, list[Row]]:
    (unit,) = task.units()
    steps: list[int] = []
    rows = unit.evaluate(sources, _context(out, steps))
    assert sum(steps) == unit.steps * len(sources), "the progress display must arrive at its total"
    return rows


def _miou(rows: list[Row]) -> float:
    return float(np.mean([row.values["IoU"] for row in rows if "IoU" in row.values]))


@pytest.mark.parametrize("name", TASKS)
def test_colours_are_told_apart(root: Path, tmp_path: Path, name: str) -> None:
    rows = _evaluate(TASKS[name](root), tmp_path, _sources())
    assert [row.part for row in rows["flowfeat"]] == ["ground", "red", "blue", "all pixels"]
    assert _miou(rows["flowfeat"]) > 0.85, "dense features see every pixel, or cells of 2 px"
    assert _miou(rows["encoder"]) > 0.6, "cells are 4 px"
    assert rows["flowfeat"][-1].values["accuracy"] > 0.9
    assert _miou(rows["flowfeat"]) > _miou(rows["encoder"])


@pytest.mark.parametrize("name", TASKS)
def test_features_that_say_nothing_find_the_commonest_class_alone(root: Path, tmp_path: Path, name: str) -> None:
    rows = _evaluate(TASKS[name](root), tmp_path, [BLIND])["flowfeat"]
    values = {row.part: row.values for row in rows}
    assert values["red"]["IoU"] == 0 and values["blue"]["IoU"] == 0
    assert values["ground"]["IoU"] == pytest.approx(values["all pixels"]["accuracy"])


def test_sources_do_not_depend_on_each_other(root: Path, tmp_path: Path) -> None:
    task = TASKS["attention"](root)
    both = _evaluate(task, tmp_path, _sources())
    assert both["flowfeat"] == _evaluate(task, tmp_path, _sources()[1:])["flowfeat"]


def test_unlabelled_pixels_do_not_count(root: Path, tmp_path: Path) -> None:
    """Spoiling what ignored pixels look like changes no score of the neighbours' probe."""
    data = open_segmentation(root)
    assert (data.scored.labels(0, 64) == 255).any()
    accuracy = _evaluate(TASKS["knn"](root), tmp_path, _sources())["flowfeat"][-1].values["accuracy"]
    assert accuracy > 0.97, "a frame of 2 px is 10 % of the picture: counted as ground it would cost more"


def test_features_are_kept_where_they_fit_and_scores_are_the_same(root: Path, tmp_path: Path) -> None:
    scores, passes = [], []
    for memory_gb in (0.0, 1.0):
        encoder = Patches()
        task = LinearSegmentation(root=root, **{**SHORT, "iterations": 8}, memory_gb=memory_gb)
        scores.append(_evaluate(task, tmp_path, _sources(encoder)))
        passes.append(encoder.passes)
    assert passes == [8 * 3 + 3, 1 + 4 + 3], "every batch and the scored split; one to measure, the train split once"
    assert scores[0]["encoder"][-1].values["accuracy"] == pytest.approx(
        scores[1]["encoder"][-1].values["accuracy"], abs=1e-3
    )


def test_a_batch_goes_through_the_network_in_parts(root: Path) -> None:
    data = open_segmentation(root)
    frozen = SplitFeatures(_sources()[:1], data.train, 64, torch.device("cpu"), 0)
    frozen.frozen.per_batch = 2
    parts = [(list(places), len(features.low_bdgf)) for places, _, features in frozen.of([3, 0, 2])]
    assert parts == [([0, 1], 2), ([2], 1)]
    frozen_again = SplitFeatures(_sources()[:1], data.train, 64, torch.device("cpu"), 10**9)
    kept = torch.cat([features.low_bdgf for _, _, features in frozen_again.of([3, 0, 2])])
    made = torch.cat([features.low_bdgf for _, _, features in frozen.of([3, 0, 2])])
    torch.testing.assert_close(kept, made)
    assert torch.equal(frozen_again.labels([3, 0]), frozen.labels([3, 0]))


def test_parts_of_a_batch_meet_their_own_labels(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture at a time through the network and all at once give one result."""
    task = LinearSegmentation(root=root, **SHORT, memory_gb=0.0)
    whole = _evaluate(task, tmp_path, _sources())
    monkeypatch.setitem(batching.BATCH_PIXELS, "cpu", 64 * 64)
    parted = _evaluate(task, tmp_path, _sources())
    for name in whole:
        assert _miou(parted[name]) == pytest.approx(_miou(whole[name]), abs=0.01)


def test_features_are_those_of_the_pictures_asked_for(root: Path) -> None:
    data = open_segmentation(root)
    for memory_bytes in (0, 10**9):
        frozen = SplitFeatures(_sources()[:1], data.train, 64, torch.device("cpu"), memory_bytes)
        ((_, _, features),) = frozen.of([3, 1])
        for place, index in enumerate((3, 1)):
            pixels = torch.from_numpy(np.array(data.train.picture(index, 64)))[None]
            torch.testing.assert_close(features.picture(place).low_bdgf, Patches().encode(pixels).low_bdgf)


def test_the_split_that_was_asked_for_is_scored(tmp_path: Path) -> None:
    """Red and blue change places in `val` alone: what was learnt is wrong there."""
    write_folders(tmp_path / "blocks")
    for path in (tmp_path / "blocks" / "valannot").iterdir():
        Image.fromarray(np.array([0, 2, 1, *range(3, 256)], np.uint8)[np.asarray(Image.open(path))]).save(path)
    values = {
        row.part: row.values for row in _evaluate(TASKS["knn"](tmp_path / "blocks"), tmp_path, _sources())["flowfeat"]
    }
    assert values["red"]["IoU"] < 0.1 and values["blue"]["IoU"] < 0.1 and values["ground"]["IoU"] > 0.8
    learnt = KnnSegmentation(root=tmp_path / "blocks", size_px=64, split="train")
    assert _miou(_evaluate(learnt, tmp_path, _sources())["flowfeat"]) > 0.85


def test_the_seed_of_the_run_draws_the_heads(root: Path, tmp_path: Path) -> None:
    train = open_segmentation(root).train
    pixels = torch.from_numpy(np.array(train.picture(0, 64)))[None]
    task = LinearSegmentation(root=root, iterations=1, batch=4, learning_rate=1e-6)
    first, same, other = (
        task.learner().learn(_sources()[:1], train, 64, replace(_context(tmp_path), seed=seed))["encoder"](
            Features(Patches().encode(pixels).low_bdgf), 64
        )
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_the_attention_is_not_decayed_to_nothing() -> None:
    """Adam's own weight decay does so: queries start nearly equal, and gradients lie far below the decay term."""
    generator = torch.Generator().manual_seed(0)
    features = Features(torch.randn(2, 6, 4, 4, generator=generator), torch.randn(2, 16, 16, 16, generator=generator))
    labels = torch.randint(0, 3, (2, 16, 16), generator=generator)
    learner = AttentionSegmentation(learning_rate=0.01).learner()
    assert isinstance(learner, TrainedHeads)
    weights = {}
    for decoupled in (False, True):
        rules = replace(learner.optimisation, decoupled=decoupled)
        classifier = PixelClassifier(features, 3, "attention", rules, seed=0)
        for _ in range(60):
            classifier.add(features, labels, labels.numel())
            classifier.step()
        weights[decoupled] = float(classifier.head.get_parameter(VALUES).detach().abs().mean())
    assert learner.optimisation.decoupled
    assert weights[False] < 0.02 < 0.1 < weights[True]


def test_epochs_become_iterations() -> None:
    learner = LinearSegmentation().learner()
    assert isinstance(learner, TrainedHeads)
    assert learner.steps(5) == 20 * 3 * 2
    assert AttentionSegmentation(iterations=7).learner().steps(5) == 7 * 5, "a batch is no larger than the data set"


def test_a_bank_is_capped(root: Path, tmp_path: Path) -> None:
    """64 cells of 3 channels and 3 classes for 4 pictures: 16 of each picture's 256 are kept."""
    train = open_segmentation(root).train
    learner = Banks(cells_per_token=1, memory_bytes=64 * 4 * 6)
    assert learner._empty(3, train, 0).cells_per_picture == 16
    assert set(learner.learn(_sources()[:1], train, 64, _context(tmp_path))) == {"encoder"}
    with pytest.raises(ValueError, match="no room"):
        Banks(1, 24).learn(_sources()[:1], train, 64, _context(tmp_path))


def test_pictures_are_drawn(root: Path, tmp_path: Path) -> None:
    _evaluate(TASKS["knn"](root), tmp_path, _sources())
    files = {path.name for path in (tmp_path / "pictures").rglob("*.jpg")}
    for name in ("000", "001", "002"):
        for rest in ("picture", "labels", "encoder.classes", "flowfeat.classes", "flowfeat.features"):
            assert f"{name}.{rest}.jpg" in files


def test_everything_that_shapes_a_score_is_in_the_settings(root: Path) -> None:
    cases: list[tuple[type[SegmentationTask], list[dict[str, Any]]]] = [
        (AttentionSegmentation, [{"iterations": 3}, {"batch": 3}, {"learning_rate": 0.5}, {"size_px": 64}]),
        (LinearSegmentation, [{"iterations": 3}, {"batch": 3}, {"learning_rate": 0.5}, {"size_px": 64}]),
        (KnnSegmentation, [{"cells_per_token": 3}, {"memory_gb": 0.1}, {"size_px": 64}]),
    ]
    for kind, changes in cases:
        base = kind(root=root).settings()
        for changed in [*changes, {"split": "test"}]:
            assert kind(root=root, **changed).settings() != base, (kind, changed)


def test_wrong_options_are_refused(root: Path, tmp_path: Path) -> None:
    for kind in (AttentionSegmentation, LinearSegmentation, KnnSegmentation):
        with pytest.raises(ValueError, match="size 0 must be above 0"):
            kind(size_px=0)
        with pytest.raises(ValueError, match="--segmentation DIR"):
            kind().units()
    with pytest.raises(ValueError, match="iterations 0 must be above 0"):
        LinearSegmentation(iterations=0)
    with pytest.raises(ValueError, match="ignored label 'sky' must be a number"):
        KnnSegmentation(root=root, ignored="255,sky").units()
    with pytest.raises(ValueError, match="size 7 is too small: the encoder takes multiples of 8"):
        _evaluate(KnnSegmentation(root=root, size_px=7), tmp_path, _sources())


def test_features_that_are_not_finite_are_refused(root: Path, tmp_path: Path) -> None:
    broken = Source("flowfeat", Patches(), lambda e: Features(torch.full_like(e.low_bdgf, torch.nan)))
    for task in TASKS.values():
        with pytest.raises(ValueError, match="not finite"):
            _evaluate(task(root), tmp_path, [broken])


def test_it_is_a_command(root: Path, checkpoint: Path, tmp_path: Path) -> None:
    given = ["--model", str(checkpoint), "--out", str(tmp_path), "--segmentation", str(root)]
    result = CliRunner().invoke(main, ["segmentation-knn", *given, "--segmentation-size", "64"])
    assert result.exit_code == 0, result.output
    assert "mIoU" in result.stdout and "pixel accuracy" in result.stdout
    lines = (tmp_path / "segmentation-knn.csv").read_text().splitlines()
    assert lines[0] == "source,data set,part,IoU,accuracy,protocol" and lines[1].startswith(
        "encoder,blocks (folders),ground,"
    )
    assert lines[-1].startswith("chance,mean,,") and "| ground |" in (tmp_path / "report.md").read_text()
    missing = CliRunner().invoke(main, ["segmentation", *given[:4], "--segmentation", str(tmp_path / "none")])
    assert missing.exit_code == 1
    assert missing.stderr.strip().count("\n") == 0 and "expected JPEGImages" in missing.stderr


def test_the_writer_labels_what_it_paints() -> None:
    assert set(np.unique(labels_of(0))) == {0, 1, 2, 255}


def test_a_class_that_never_occurs_has_no_row() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([0, 0, 1, 255]), np.array([0, 1, 1, 2]))
    assert [(row.part, dict(row.values)) for row in rows_of(matrix, ("a", "b", "c"))] == [
        ("a", {"IoU": 0.5}),
        ("b", {"IoU": 0.5}),
        ("all pixels", {"accuracy": pytest.approx(2 / 3)}),
    ]

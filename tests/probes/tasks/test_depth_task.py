"""The depth probe from disk to rows: pictures that tell their depth, features that tell nothing, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probes.data.batching import BatchLimit
from probes.metrics.depth import absolute_relative_error, score_depth
from probes.report.pictures import PictureFolder
from probes.sources.features import Encoding, Source
from probes.task import Context, Row
from probes.tasks.depth import Depth, Training, scores
from probes.tasks.depth_training import TrainingPictures
from tests.probes.small_depth import PIXELS, SHUFFLED_PIXELS, SHUFFLED_TOKENS, TOKENS, Bumps, write_folder


def _task(root: Path, **changes: Any) -> Depth:
    return replace(Depth(root, 48, iterations=150, batch=4, learning_rate=2e-2, bins=32, farthest_m=5.0), **changes)


def _evaluate(unit: Training, out: Path, *sources: Source) -> dict[str, list[Row]]:
    steps: list[int] = []
    context = Context(torch.device("cpu"), 0, PictureFolder(out, "depth", unit.name), steps.append)
    rows = unit.evaluate(sources, context)
    assert sum(steps) == unit.steps * len(sources), "the progress display must arrive at its total"
    return rows


def _mean(rows: list[Row], metric: str) -> float:
    return float(np.mean([row.values[metric] for row in rows]))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("rgbd"), 10)


def test_features_that_tell_depth_are_found_out(root: Path, tmp_path: Path) -> None:
    (unit,) = _task(root).units()
    rows = _evaluate(unit, tmp_path, TOKENS, PIXELS)
    for name in ("encoder", "flowfeat"):
        assert [row.part for row in rows[name]] == [f"frame-{index:03d}.color" for index in (7, 8, 9)]
        assert _mean(rows[name], "rmse") < 0.3 * _mean(rows[name], "rmse_mean_depth")
        assert _mean(rows[name], "delta1") > 0.9
        assert _mean(rows[name], "normal_mean") < 0.6 * _mean(rows[name], "normal_mean_wall")
    pictures = {path.name for path in (tmp_path / "pictures/depth/run 0").iterdir()}
    assert {"frame-007.color.flowfeat.depth.jpg", "frame-007.color.picture.jpg"} <= pictures


def test_shuffled_features_score_as_no_picture_does(root: Path, tmp_path: Path) -> None:
    (unit,) = _task(root).units()
    rows = _evaluate(unit, tmp_path, SHUFFLED_TOKENS, SHUFFLED_PIXELS)
    mean_depth = np.mean([pair.depth_m().mean() for pair in unit.train])
    constant = [score_depth(np.full((48, 48), mean_depth), pair.depth_m()) for pair in unit.test]
    chance = float(np.mean([one.delta1 for one in constant if one is not None]))
    for name in ("encoder", "flowfeat"):
        assert _mean(rows[name], "rmse") > 0.9 * _mean(rows[name], "rmse_mean_depth")
        assert _mean(rows[name], "normal_mean") > 0.9 * _mean(rows[name], "normal_mean_wall")
        assert _mean(rows[name], "delta1") < chance + 0.05


def test_a_source_is_measured_as_if_alone_and_again_alike(root: Path, tmp_path: Path) -> None:
    (unit,) = _task(root, iterations=3).units()
    both = _evaluate(unit, tmp_path, TOKENS, PIXELS)
    assert _evaluate(unit, tmp_path, PIXELS)["flowfeat"] == both["flowfeat"]


def test_runs_differ_by_their_seed_only(root: Path, tmp_path: Path) -> None:
    first, second = _task(root, iterations=3, runs=2).units()
    assert (first.name, second.name) == ("run 0", "run 1")
    assert first.fingerprint() == second.fingerprint()
    assert _evaluate(first, tmp_path, PIXELS) != _evaluate(second, tmp_path, PIXELS)


def test_an_exact_prediction_has_no_error(root: Path) -> None:
    (unit,) = _task(root).units()
    truth = unit.test[0].depth_m()
    values = scores(np.where(truth > 0, truth, 1).astype(np.float32), truth, unit.test[0], mean_depth=2.5)
    assert values["rmse"] == values["abs_rel"] == 0 and values["delta1"] == 1
    assert values["normal_mean"] < 1e-6 and values["normal_11"] == 1
    measured = truth[truth > 0].astype(np.float64)
    assert values["rmse_mean_depth"] == pytest.approx(np.sqrt(np.mean((measured - 2.5) ** 2)))


def test_absolute_relative_error() -> None:
    truth = np.array([[2.0, 4.0, 0.0, 9.0]])
    assert absolute_relative_error(np.array([[1.0, 5.0, 7.0, 9.0]]), truth, farthest_m=5) == pytest.approx(0.375)
    assert absolute_relative_error(truth, np.zeros_like(truth)) is None


def test_without_a_camera_normals_are_left_out(tmp_path: Path) -> None:
    (unit,) = _task(write_folder(tmp_path / "data", 4, camera=False), iterations=1).units()
    (row, *_) = _evaluate(unit, tmp_path, PIXELS)["flowfeat"]
    assert set(row.values) == {"rmse", "rmse_mean_depth", "abs_rel", "delta1", "delta2", "delta3"}
    assert not list((tmp_path / "pictures").rglob("*normals*"))


def test_what_is_beyond_the_last_bin_is_not_scored(root: Path, tmp_path: Path) -> None:
    (unit,) = _task(root, iterations=1, farthest_m=2.0).units()
    for row in _evaluate(unit, tmp_path, PIXELS)["flowfeat"]:
        assert row.values["rmse"] <= 2.0
    (nothing,) = _task(root, iterations=1, farthest_m=0.5).units()
    with pytest.raises(
        ValueError, match=r"nothing in 7 training pictures: are --depth-scale 1000 and --depth-farthest 0.5"
    ):
        _evaluate(nothing, tmp_path, PIXELS)


@pytest.mark.parametrize("memory_bytes", [0, 2**30])
def test_training_sees_measured_depths_only(root: Path, memory_bytes: int) -> None:
    """Reduced to half the size, no depth is a mixture of a measured one and of nothing."""
    (unit,) = _task(root, iterations=3).units()
    measured = {float(depth) for pair in unit.train for depth in np.unique(pair.depth_m())}
    training = TrainingPictures(
        [PIXELS], unit.train, unit.task.measured, (24, 24), torch.device("cpu"), memory_bytes, BatchLimit()
    )
    batches = [
        ({source.name: found for source, found in several}, truth) for several, truth in training.batches(4, 3, 0)
    ]
    assert [(found["flowfeat"].low_bdgf.shape[0], truth.shape) for found, truth in batches] == [(4, (4, 1, 24, 24))] * 3
    seen = torch.cat([truth.flatten() for _, truth in batches])
    assert {float(depth) for depth in seen.unique()} <= measured
    assert training.mean_depth.value == pytest.approx(float(seen[seen > 0].mean()), rel=1e-5)


def test_features_are_kept_where_they_fit_and_rows_are_the_same(root: Path, tmp_path: Path) -> None:
    pictures: list[int] = []

    class Counted(Bumps):
        def encode(self, images_bhwc: torch.Tensor) -> Encoding:
            pictures.append(len(images_bhwc))
            return super().encode(images_bhwc)

    source = replace(PIXELS, encoder=Counted())
    rows, seen = [], []
    for memory_gb in (0.0, 1.0):
        (unit,) = _task(root, iterations=5, memory_gb=memory_gb).units()
        rows.append(_evaluate(unit, tmp_path, source)["flowfeat"])
        seen.append(sum(pictures))
        pictures.clear()
    assert seen == [5 * 4 + 3, 1 + 7 + 3], (
        "every batch; one to measure and the training pictures once; the test pictures"
    )
    assert rows[0] == rows[1]


def test_bad_settings_and_missing_data_are_one_line() -> None:
    with pytest.raises(ValueError, match=r"needs --depth DIR: expected pictures beside"):
        Depth().units()
    settings: list[dict[str, Any]] = [
        {"iterations": 0},
        {"batch": 0},
        {"runs": 0},
        {"learning_rate": 0},
        {"scale": -1},
        {"bins": 1},
    ]
    for wrong in settings:
        with pytest.raises(ValueError, match="depth"):
            Depth(**wrong)


def test_everything_that_shapes_a_score_is_in_the_settings(root: Path) -> None:
    base = Depth(root)
    for changed in ("side_px", "iterations", "batch", "learning_rate", "bins", "farthest_m", "scale"):
        assert replace(base, **{changed: getattr(base, changed) * 2}).settings() != base.settings(), changed
    assert replace(base, runs=3).settings() == base.settings()
    (paper,) = Depth.references({**base.settings(), "variant": "dinov2_vits14"}, 1)
    assert paper.rows[-2] == ["DINO2-S14 + FlowFeat-YT *", "0.3072", "93.91", "99.25", "99.86"]

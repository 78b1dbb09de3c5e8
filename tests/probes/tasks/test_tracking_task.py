"""Point tracking on a picture that slides: features that know their place follow it, shuffled ones don't."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from probes.metrics.tracking import THRESHOLDS_PX
from probes.report.pictures import PictureFolder
from probes.sources.features import Source
from probes.task import Context, Row
from probes.tasks.tracking import Tracking
from tests.probes.data.test_homographies import coordinate_picture
from tests.probes.tasks.test_homography_task import PIXELS, SHUFFLED, TOKENS

FRAMES, POINTS, SHIFT_PX = 7, 12, 4


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 64x64 window slides over `coordinate_picture`; points of the picture move the other way, and some hide."""
    root = tmp_path_factory.mktemp("tracks")
    picture = np.asarray(coordinate_picture())
    video = np.stack([picture[16:80, SHIFT_PX * t : SHIFT_PX * t + 64] for t in range(FRAMES)])
    rng = np.random.default_rng(0)
    start = np.stack([rng.uniform(30, 62, POINTS), rng.uniform(2, 62, POINTS)], axis=1)
    moved = start[:, None] - np.arange(FRAMES)[None, :, None] * (SHIFT_PX, 0)
    occluded = np.zeros((POINTS, FRAMES), bool)
    occluded[0, :2] = True
    occluded[1, 3:] = True
    np.savez(root / "slide.npz", video=video, points=moved / 64, occluded=occluded)
    return root


def _row(root: Path, out: Path, source: Source, **changes: object) -> Row:
    task = replace(Tracking(root, side_px=64, matched="decoder"), **changes)  # type: ignore[arg-type]
    (unit,) = task.units()
    steps: list[int] = []
    context = Context(torch.device("cpu"), 0, PictureFolder(out, "tracking", unit.name), steps.append)
    (row,) = unit.evaluate([source], context)[source.name]
    assert sum(steps) == unit.steps
    return row


def test_points_are_followed_by_pixels_and_less_by_tokens(root: Path, tmp_path: Path) -> None:
    pixels, tokens = _row(root, tmp_path, PIXELS).values, _row(root, tmp_path, TOKENS).values
    for mode in ("first", "strided"):
        assert pixels[mode] == pixels[f"{mode}_ceiling"] > 0.8, "every answer is the best that there is"
        assert pixels[f"{mode}_4_ceiling"] == 1.0 and tokens[f"{mode}_4_ceiling"] < 0.2
        assert tokens[mode] < 0.5 * pixels[mode]
        for values in (pixels, tokens):
            assert values[mode] == pytest.approx(np.mean([values[f"{mode}_{x:g}"] for x in THRESHOLDS_PX]))
            for limit in THRESHOLDS_PX:
                assert values[f"{mode}_{limit:g}"] <= values[f"{mode}_{limit:g}_ceiling"]
    pictures = {path.name for path in (tmp_path / "pictures").rglob("*.jpg")}
    assert {"frame 00002.encoder.tracks.jpg", "frame 00005.flowfeat.tracks.jpg"} <= pictures


def test_shuffled_features_follow_nothing(root: Path, tmp_path: Path) -> None:
    shuffled = _row(root, tmp_path, SHUFFLED).values
    for mode in ("first", "strided"):
        assert shuffled[f"{mode}_16"] < 0.06, "1.2 % by chance, of 60 and 130 answers"
        assert shuffled[f"{mode}_16_ceiling"] == 1.0


def test_batches_of_frames_change_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = _row(root, tmp_path, PIXELS)
    monkeypatch.setattr("probes.tasks.tracking.BATCH_FRAMES", 1)
    assert _row(root, tmp_path, PIXELS) == together


def test_queries_are_read_from_their_own_frame(root: Path, tmp_path: Path) -> None:
    """A point that appears late is asked for where it appears: spoiling its hidden places changes nothing."""
    before = _row(root, tmp_path, PIXELS).values
    with np.load(root / "slide.npz") as stored:
        arrays = dict(stored)
    arrays["points"][0, :2] = 0.9
    (tmp_path / "spoilt").mkdir()
    np.savez(tmp_path / "spoilt/slide.npz", **arrays)
    assert _row(tmp_path / "spoilt", tmp_path, PIXELS).values == before


def test_bad_settings_and_missing_data_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs --tracks FILE or DIR: expected tapvid_davis.pkl"):
        Tracking().units()
    with pytest.raises(ValueError, match="at least 1 pixel"):
        Tracking(tmp_path, side_px=0)
    hidden = np.ones((2, 3), bool)
    np.savez(tmp_path / "a.npz", video=np.zeros((3, 8, 8, 3), np.uint8), points=np.zeros((2, 3, 2)), occluded=hidden)
    with pytest.raises(ValueError, match=r"no point of 1 videos .* is visible in two frames"):
        Tracking(tmp_path).units()


def test_everything_that_shapes_a_score_is_in_the_settings(root: Path) -> None:
    base = Tracking(root)
    assert replace(base, side_px=96).settings() != base.settings() != replace(base, matched="decoder").settings()

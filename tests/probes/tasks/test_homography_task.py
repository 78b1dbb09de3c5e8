"""Zero-shot correspondence: features that know their place reach the ceiling, shuffled ones find nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from probes.heads.joined import joined_map
from probes.report.pictures import PictureFolder
from probes.sources.features import Encoding, Features, Source
from probes.task import Context, Row
from probes.tasks.homography import THRESHOLDS_PX, HomographyMatching
from tests.probes.data.test_homographies import coordinate_picture
from tests.probes.small_depth import shuffled

PATCH = 16


class Places:
    """An encoder that reads a pixel's place in the first view off the colours of `coordinate_picture`, as angles."""

    size_multiple = PATCH

    def encode(self, images_bhwc: torch.Tensor) -> Encoding:
        angles = images_bhwc.movedim(-1, 1)[:, :2].float() / 255 * 3
        places = torch.cat([angles.cos(), angles.sin()], dim=1)
        return Encoding(places, F.avg_pool2d(places, PATCH))


TOKENS = Source("encoder", Places(), lambda encoding: Features(encoding.low_bdgf))
PIXELS = Source("flowfeat", Places(), lambda encoding: Features(encoding.low_bdgf, encoding.images_bchw))
SHUFFLED = Source(
    "flowfeat", Places(), lambda encoding: Features(shuffled(encoding.low_bdgf), shuffled(encoding.images_bchw))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "below").mkdir()
    for name in ("a.png", "b.png", "below/c.png"):
        coordinate_picture().save(folder / name)
    return folder


def _task(folder: Path, **changes: object) -> HomographyMatching:
    task = HomographyMatching(folder, height_px=96, views=2, points=200, matched="decoder")
    return replace(task, **changes)  # type: ignore[arg-type]


def _rows(task: HomographyMatching, out: Path, *sources: Source, seed: int = 0, unit: int = 0) -> dict[str, list[Row]]:
    one = task.units()[unit]
    steps: list[int] = []
    rows = one.evaluate(
        sources, Context(torch.device("cpu"), seed, PictureFolder(out, "homography", one.name), steps.append)
    )
    assert sum(steps) == one.steps * len(sources)
    return rows


def _mean(rows: list[Row], metric: str) -> float:
    return float(np.mean([row.values[metric] for row in rows]))


def test_pixel_features_find_points_that_tokens_cannot(folder: Path, tmp_path: Path) -> None:
    rows = _rows(_task(folder), tmp_path, TOKENS, PIXELS)
    tokens, pixels = rows["encoder"], rows["flowfeat"]
    assert [row.part for row in pixels] == ["view 1", "view 2"]
    assert _mean(pixels, "within_4") > 0.9 and _mean(pixels, "ceiling_1") == 1.0
    assert _mean(tokens, "ceiling_1") == pytest.approx(np.pi / PATCH**2, abs=0.02), "a disk of 1 px in a cell"
    assert _mean(tokens, "ceiling_8") == pytest.approx(np.pi * 64 / PATCH**2, abs=0.06)
    assert _mean(tokens, "within_8") > 0.5 * _mean(tokens, "ceiling_8")
    for row in (*tokens, *pixels):
        for limit in THRESHOLDS_PX:
            assert row.values[f"within_{limit}"] <= row.values[f"ceiling_{limit}"]
        assert row.values["mean"] == pytest.approx(np.mean([row.values[f"within_{x}"] for x in THRESHOLDS_PX]))
    assert list((tmp_path / "pictures").rglob("*flowfeat.matches.jpg"))


def testshuffled_features_find_nothing(folder: Path, tmp_path: Path) -> None:
    rows = _rows(_task(folder), tmp_path, SHUFFLED)["flowfeat"]
    chance = np.pi * 64 / (96 * 128)
    assert _mean(rows, "within_8") < 3 * chance
    assert _mean(rows, "ceiling_8") == 1.0


def test_features_that_are_all_alike_score_by_chance(folder: Path, tmp_path: Path) -> None:
    same = Source("encoder", Places(), lambda encoding: Features(torch.ones_like(encoding.low_bdgf)))
    assert _mean(_rows(_task(folder), tmp_path, same)["encoder"], "within_8") < 0.05


def test_without_a_warp_every_point_is_found(folder: Path, tmp_path: Path) -> None:
    rows = _rows(_task(folder, warp=0.0, matched="both"), tmp_path, PIXELS)["flowfeat"]
    assert _mean(rows, "within_4") == 1.0


def test_views_hang_on_picture_and_seed_alone(folder: Path, tmp_path: Path) -> None:
    task = _task(folder)
    rows = _rows(task, tmp_path, PIXELS)
    first, second = _rows(task, tmp_path, TOKENS)["encoder"]
    assert first.values != second.values, "every view is another"
    assert _rows(task, tmp_path, TOKENS, PIXELS)["flowfeat"] == rows["flowfeat"], "as if alone"
    assert _rows(replace(task, most=1), tmp_path, PIXELS) == rows, "in any selection"
    assert _rows(task, tmp_path, TOKENS, seed=1) != _rows(task, tmp_path, TOKENS)
    assert _rows(task, tmp_path, TOKENS, unit=1) != _rows(task, tmp_path, TOKENS), "every picture has its own"


def test_joined_map_is_the_mean_of_two_cosines() -> None:
    torch.manual_seed(0)
    low, high = torch.randn(1, 3, 2, 2).repeat_interleave(4, 2).repeat_interleave(4, 3), torch.randn(1, 5, 8, 8)
    joined = joined_map(Features(low, high), "both")
    one, other = joined[:, 1, 2], joined[:, 6, 7]
    cosines = [F.cosine_similarity(x[0, :, 1, 2], x[0, :, 6, 7], dim=0) for x in (low, high)]
    torch.testing.assert_close(F.cosine_similarity(one, other, dim=0), (cosines[0] + cosines[1]) / 2)
    assert torch.equal(joined_map(Features(low, high), "decoder"), high[0])
    assert torch.equal(joined_map(Features(low), "decoder"), low[0])


def test_pictures_are_spread_over_the_folder(folder: Path) -> None:
    assert [unit.name for unit in _task(folder).units()] == ["a.png", "b.png", "below/c.png"]
    assert [unit.name for unit in _task(folder, most=2).units()] == ["a.png", "below/c.png"]


def test_bad_settings_and_missing_data_are_one_line(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"needs --images DIR: expected a folder with .jpg"):
        HomographyMatching().units()
    with pytest.raises(ValueError, match=r"nowhere is not a directory: expected"):
        HomographyMatching(tmp_path / "nowhere").units()
    with pytest.raises(ValueError, match="holds no picture: expected"):
        HomographyMatching(tmp_path).units()
    for wrong in ({"warp": 0.5}, {"warp": -0.1}, {"points": 0}, {"views": 0}, {"most": 0}, {"height_px": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            _task(folder, **wrong)
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"cannot decode the picture .*broken.jpg"):
        _rows(HomographyMatching(tmp_path), tmp_path, PIXELS)


def test_everything_that_shapes_a_score_is_in_the_settings(folder: Path) -> None:
    base = _task(folder)
    for changed in ({"height_px": 64}, {"warp": 0.1}, {"views": 1}, {"points": 9}, {"matched": "both"}):
        assert _task(folder, **changed).settings() != base.settings(), changed
    assert _task(folder, most=1).settings() == base.settings()

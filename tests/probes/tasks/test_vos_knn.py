"""Label propagation as a probe: protocols, what is refused, and scores on videos whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from probes.heads.label_propagation import DINO480, DINOV3_960
from probes.report.pictures import PictureFolder
from probes.sources.features import Encoding, Features, Source
from probes.task import Context, Row, Settings
from probes.tasks.vos_knn import KnnVos, PropagationUnit, maps_of, resized
from tests.probes.small_davis import write_labels, write_sequence

PATCH = 4


class Patches:
    """An encoder whose tokens are the mean colours of patches."""

    size_multiple = 2 * PATCH

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def encode(self, images_bhwc: torch.Tensor) -> Encoding:
        self.sizes.append((images_bhwc.shape[1], images_bhwc.shape[2]))
        images = images_bhwc.movedim(-1, 1).float() / 64 - 1.7
        return Encoding(images, torch.nn.functional.avg_pool2d(images, PATCH))


def colors(encoder: Patches | None = None) -> Source:
    """Tokens that tell the objects apart."""
    return Source("flowfeat", encoder or Patches(), lambda encoding: Features(encoding.low_bdgf))


CONSTANT = Source("flowfeat", Patches(), lambda encoding: Features(torch.ones_like(encoding.low_bdgf)))
"""Features that say nothing: labels blur from frame to frame."""


def _unit(root: Path, *, height: int | None = 64, protocol: str = DINO480.name, grid: int = 1) -> PropagationUnit:
    (unit,) = KnnVos(root=root, sequences=("boxes",), height_px=height, protocol=protocol, grid=grid).units()
    return unit


def _rows(unit: PropagationUnit, out: Path, *sources: Source) -> list[Row]:
    steps: list[int] = []
    context = Context(torch.device("cpu"), 0, PictureFolder(out, "vos-knn", unit.name), steps.append)
    rows = unit.evaluate(sources, context)
    assert sum(steps) == unit.steps * len(sources), "the progress display must arrive at its total"
    return rows["flowfeat"]


def _mean_j(rows: list[Row]) -> float:
    return float(np.mean([row.values["J"] for row in rows]))


@pytest.mark.parametrize("protocol", [DINO480.name, DINOV3_960.name])
def test_objects_are_followed_under_both_protocols(davis: Path, tmp_path: Path, protocol: str) -> None:
    rows = _rows(_unit(davis, protocol=protocol), tmp_path, colors())
    assert [row.part for row in rows] == ["1", "2"]
    assert _mean_j(rows) > 0.8, "cells are 4 px: edges are what is lost"
    assert _mean_j(rows) > _mean_j(_rows(_unit(davis, protocol=protocol), tmp_path, CONSTANT)) + 0.2


def test_scores_stand_at_their_own_frames(tmp_path: Path) -> None:
    """Frames 1 to 4 are scored: a wrong annotation of frame 3 lowers the last quarter, frames 3 and 4, and so J decays."""
    write_sequence(tmp_path, "boxes")
    root = tmp_path / "Annotations" / "480p" / "boxes"
    before = _rows(_unit(tmp_path), tmp_path / "out", colors())[0].values["J_decay"]
    (root / "00003.png").write_bytes((root / "00000.png").read_bytes())
    assert _rows(_unit(tmp_path), tmp_path / "out", colors())[0].values["J_decay"] > before + 0.1


def test_a_decoder_is_averaged_with_the_encoder(davis: Path, tmp_path: Path) -> None:
    """Constant tokens and a telling decoder: better than the tokens alone, and not the decoder alone either."""
    both = Source("flowfeat", Patches(), lambda e: Features(torch.ones_like(e.low_bdgf), e.images_bchw))
    unit = _unit(davis)
    blind, mixed, telling = (_mean_j(_rows(unit, tmp_path, one)) for one in (CONSTANT, both, colors()))
    assert blind < mixed < telling


def test_maps_are_brought_to_one_grid() -> None:
    low, high = torch.rand(1, 5, 3, 4), torch.rand(1, 2, 24, 32)
    maps = maps_of(Features(low, high), 1)
    assert [tuple(one.shape) for one in maps] == [(5, 3, 4), (2, 3, 4)]
    torch.testing.assert_close(maps[1], torch.nn.functional.avg_pool2d(high, 8)[0])
    assert [tuple(one.shape) for one in maps_of(Features(low, high), 2)] == [(5, 6, 8), (2, 6, 8)]
    assert len(maps_of(Features(low), 2)) == 1


def test_a_doubled_grid_finds_finer_edges(davis: Path, tmp_path: Path) -> None:
    decoded = Source("flowfeat", Patches(), lambda e: Features(e.low_bdgf, e.images_bchw))
    assert _mean_j(_rows(_unit(davis, grid=2), tmp_path, decoded)) > _mean_j(_rows(_unit(davis), tmp_path, decoded))


def test_frames_have_the_protocols_size(davis: Path, tmp_path: Path) -> None:
    """64x96 frames: 480 and a multiple of 64; 960 and what the encoder takes."""
    for protocol, size in ((DINO480.name, (480, 704)), (DINOV3_960.name, (960, 1440))):
        encoder = Patches()
        unit = _unit(davis, height=None, protocol=protocol)
        with pytest.raises(RuntimeError, match="stop here"):
            unit.evaluate([Source("flowfeat", encoder, _stop)], _silent(tmp_path))
        assert encoder.sizes == [size]


def test_a_smaller_size_keeps_the_aspect() -> None:
    """The protocol's step of 64 px would make 64 of 96 at a third of its size, and nothing at all of 48."""
    assert KnnVos(height_px=64).rules.input_size(64, 96, 8) == (64, 96)
    assert KnnVos(height_px=480).rules is DINO480
    assert KnnVos(height_px=64, protocol="dinov3-960").rules.input_size(64, 96, 28) == (84, 140)


def _stop(encoding: Encoding) -> Features:
    raise RuntimeError("stop here")


def _silent(out: Path) -> Context:
    return Context(torch.device("cpu"), 0, PictureFolder(out, "vos-knn", "boxes"), lambda steps: None)


def test_bilinear_is_opencvs_without_antialiasing() -> None:
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::4] = 255
    image = Image.fromarray(stripes)
    opencv = resized([image], (2, 2), DINO480, torch.device("cpu"))
    assert opencv[..., 0].tolist() == [[[0, 0], [0, 0]]], "every fourth column is missed by sampling between two others"
    assert int(resized([image], (2, 2), DINOV3_960, torch.device("cpu")).min()) > 0, "Pillow averages them"


def test_everything_that_shapes_a_score_is_in_the_settings(davis: Path) -> None:
    base = KnnVos(root=davis).settings()
    assert base["height"] == 480
    assert KnnVos(root=davis, protocol="dinov3-960").settings()["height"] == 960
    for changed in ({"height_px": 96}, {"protocol": "dinov3-960"}, {"grid": 2}, {"year": "2016"}):
        assert KnnVos(root=davis, **changed).settings() != base, changed
    assert KnnVos(root=davis, sequences=("boxes",)).settings() == base


def test_the_papers_table_stands_beside_its_own_protocol_only() -> None:
    settings: Settings = {"variant": "dino_vits16", "height": 480, "protocol": "dino480", "grid": 1}
    (ours,) = KnnVos.references(settings, 2)
    assert [row for row in ours.rows if row[0].endswith("*")] == [
        ["DINO-S16 *", "61.5", "59.9", "63.1"],
        ["DINO-S16 + FeatUp *", "63.7", "62.4", "64.9"],
        ["DINO-S16 + FlowFeat-YT *", "63.7", "62.0", "65.5"],
        ["DINO-S16 + FlowFeat-K *", "66.5", "64.5", "68.4"],
    ]
    assert KnnVos.references({**settings, "protocol": "dinov3-960"}, 2) == ()
    (doubled,) = KnnVos.references({"variant": "dinov2_vits14", "protocol": "dino480", "grid": 2}, 2)
    assert "Table 6" in doubled.title and doubled.rows[3] == ["DINO2-S14 + FlowFeat-YT *", "70.3", "68.0", "72.5"]


def test_wrong_options_are_refused() -> None:
    for wrong, message in (
        ({"protocol": "dino"}, "known: dino480, dinov3-960"),
        ({"height_px": 0}, "at least 1"),
        ({"grid": 3}, "must be 1"),
    ):
        with pytest.raises(ValueError, match=message):
            KnnVos(**wrong)
    with pytest.raises(ValueError, match="--davis DIR"):
        KnnVos().units()


def test_a_height_below_the_encoders_step_is_refused(davis: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="height 7 is too small: the encoder takes multiples of 8"):
        _rows(_unit(davis, height=7), tmp_path, colors())


def test_objects_that_vanish_on_the_grid_are_refused(tmp_path: Path) -> None:
    write_sequence(tmp_path, "boxes", frames=3)
    labels = np.zeros((64, 96), np.uint8)
    labels[0, 0] = 1
    write_labels(tmp_path / "Annotations" / "480p" / "boxes" / "00000.png", labels)
    with pytest.raises(ValueError, match=r"vanish at 8x12 .*--height"):
        _rows(_unit(tmp_path, height=32), tmp_path / "out", colors())


def test_features_that_are_not_finite_are_refused(davis: Path, tmp_path: Path) -> None:
    broken = Source("flowfeat", Patches(), lambda e: Features(torch.full_like(e.low_bdgf, float("nan"))))
    with pytest.raises(ValueError, match="not finite"):
        _rows(_unit(davis), tmp_path, broken)

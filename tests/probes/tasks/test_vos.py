"""The segmentation probe: sizes, labels, and scores on problems whose answer is known."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from probes.data.batching import batches
from probes.data.davis import open_davis
from probes.report.pictures import PictureFolder
from probes.sources.features import Encoding, Features, Source
from probes.task import Context, Row, Settings
from probes.tasks import vos
from probes.tasks.vos_common import SequenceUnit
from probes.tasks.vos_knn import KnnVos
from tests.probes.small_davis import write_labels, write_sequence


class Pixels:
    """An encoder whose maps are the picture itself."""

    size_multiple = 16

    def encode(self, images_bhwc: torch.Tensor) -> Encoding:
        images = images_bhwc.movedim(-1, 1).float() / 64 - 2
        return Encoding(images, torch.zeros(len(images), 5, 4, 6))


COLORS = Source("flowfeat", Pixels(), lambda encoding: Features(encoding.low_bdgf, encoding.images_bchw))
"""A linear layer separates red, blue and grey."""
CONSTANT = Source(
    "flowfeat", Pixels(), lambda encoding: Features(encoding.low_bdgf, torch.ones_like(encoding.images_bchw))
)
"""Features that say nothing."""


def test_labels_are_taken_at_cell_centres() -> None:
    labels = np.zeros((16, 16), np.uint8)
    labels[9:, 9:] = 3
    grid = vos.labels_for(Features(torch.zeros(1, 2, 2, 2)), labels)
    assert grid.tolist() == [[0, 0], [0, 3]], "the corner (8, 8) of the last cell is background, its centre isn't"
    full = vos.labels_for(Features(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 16, 16)), labels)
    assert np.array_equal(full.numpy(), labels)


def _unit(root: Path, *sequences: str, height_px: int = 64) -> vos.LinearUnit:
    (unit,) = vos.LinearVos(root=root, height_px=height_px, sequences=sequences).units()
    return unit


def _rows(unit: SequenceUnit, out: Path, *sources: Source) -> list[Row]:
    steps: list[int] = []
    context = Context(torch.device("cpu"), 0, PictureFolder(out, "vos", unit.name), steps.append)
    rows = unit.evaluate(sources, context)
    assert sum(steps) == unit.steps * len(sources), "the progress display must arrive at its total"
    return rows["flowfeat"]


def test_separable_objects_are_found(davis: Path, tmp_path: Path) -> None:
    for row in _rows(_unit(davis, "boxes"), tmp_path, COLORS):
        assert row.values["J"] > 0.95
        assert row.values["F"] > 0.95
        assert row.values["JF"] == (row.values["J"] + row.values["F"]) / 2
        assert row.values["J_recall"] == 1.0


def test_features_without_information_find_nothing(davis: Path, tmp_path: Path) -> None:
    for row in _rows(_unit(davis, "boxes"), tmp_path, CONSTANT):
        assert row.values["J"] == 0.0
        assert row.values["F"] == 0.0


def test_sources_of_two_encoders_are_measured_as_if_alone(davis: Path, tmp_path: Path) -> None:
    other = Source("encoder", Pixels(), CONSTANT.decode)
    unit = _unit(davis, "boxes")
    assert _rows(unit, tmp_path, other, COLORS) == _rows(unit, tmp_path, COLORS)


def test_first_and_last_frame_are_not_scored(tmp_path: Path) -> None:
    """Spoiling the annotation of the last frame changes nothing; that of the last but one does."""
    write_sequence(tmp_path, "boxes")
    root = tmp_path / "Annotations" / "480p" / "boxes"

    def mean() -> float:
        return _rows(_unit(tmp_path), tmp_path / "out", COLORS)[0].values["J"]

    before = mean()
    (root / "00005.png").write_bytes((root / "00000.png").read_bytes())
    assert mean() == before
    (root / "00004.png").write_bytes((root / "00000.png").read_bytes())
    assert mean() < before


def test_batches_cover_every_scored_frame_once() -> None:
    assert [list(batch) for batch in batches(1, 7, 4)] == [[1, 2, 3, 4], [5, 6]]


def test_settings_are_checked() -> None:
    for wrong in (partial(vos.LinearVos, height_px=0), partial(vos.LinearVos, iterations=0)):
        with pytest.raises(ValueError, match="at least 1"):
            wrong()


def test_everything_that_shapes_a_score_is_in_the_settings(davis: Path) -> None:
    """Two tasks that measure something else have other settings; the choice of sequences changes no score."""
    base = vos.LinearVos(root=davis).settings()
    for changed in (
        {"height_px": 96},
        {"iterations": 7},
        {"standardise": True},
        {"year": "2016"},
        {"decoder_grid": "tokens"},
    ):
        assert vos.LinearVos(root=davis, **changed).settings() != base, changed
    assert vos.LinearVos(root=davis, sequences=("boxes",)).settings() == base
    assert len(open_davis(davis)) == len(vos.LinearVos(root=davis).units())


def test_the_papers_row_is_starred() -> None:
    (ours,) = vos.LinearVos.references({"variant": "dinov2_vits14", "height": 480}, 2)
    assert ours.header == ["method", "J&F", "J mean", "F mean"]
    starred = [row for row in ours.rows if row[0].endswith(" *")]
    assert starred == [
        ["DINO2-S14 *", "57.5", "54.2", "60.7"],
        ["DINO2-S14 + random DPT *", "58.7", "55.2", "62.2"],
        ["DINO2-S14 + FeatUp *", "60.5", "57.4", "63.6"],
        ["DINO2-S14 + LoftUp *", "63.0", "59.6", "66.4"],
        ["DINO2-S14 + FlowFeat-YT *", "65.8", "62.0", "69.7"],
        ["DINO2-S14 + FlowFeat-K *", "64.6", "61.0", "68.2"],
    ]
    assert "Starred" in ours.note
    (others,) = vos.LinearVos.references({"variant": "demo_vit8"}, 2)
    assert not any("*" in row[0] for row in others.rows) and "None is" in others.note


def test_the_papers_reduced_resolution_has_its_own_figures() -> None:
    settings: Settings = {"variant": "dinov2_vits14", "height": 480, "decoder grid": "tokens"}
    (ours,) = vos.LinearVos.references(settings, 30)
    assert ours.rows[0] == ["DINO2-S14 *", "57.5", "54.2", "60.7"]
    assert ours.rows[2:] == [
        ["DINO2-S14 + FlowFeat-YT *", "62.2", "58.2", "66.3"],
        ["DINO2-S14 + FlowFeat-K *", "62.3", "58.1", "66.4"],
    ]


def test_on_the_token_grid_a_decoder_is_probed_by_cells(davis: Path, tmp_path: Path) -> None:
    """A source whose map is coarse already scores the same; a finer one loses its edges; tokens alone are left as they are."""

    def f_mean(source: Source, grid: str) -> float:
        (unit,) = vos.LinearVos(root=davis, height_px=64, sequences=("boxes",), decoder_grid=grid).units()
        return float(np.mean([row.values["F"] for row in _rows(unit, tmp_path, source)]))

    coarse = Source(
        "flowfeat",
        Pixels(),
        lambda encoding: Features(encoding.low_bdgf, torch.nn.functional.avg_pool2d(encoding.images_bchw, 16)),
    )
    assert f_mean(COLORS, "tokens") == f_mean(coarse, "pixels") < f_mean(COLORS, "pixels") - 0.2
    tokens = Features(torch.randn(1, 5, 4, 6))
    assert vos.LinearVos(root=davis, decoder_grid="tokens").probed(tokens) is tokens
    with pytest.raises(ValueError, match="'rows' must be pixels or tokens"):
        vos.LinearVos(root=davis, decoder_grid="rows")


def test_objects_that_vanish_at_the_input_size_are_refused(tmp_path: Path) -> None:
    write_sequence(tmp_path, "boxes", frames=3)
    labels = np.zeros((64, 96), np.uint8)
    labels[0, 0] = 1
    write_labels(tmp_path / "Annotations" / "480p" / "boxes" / "00000.png", labels)
    with pytest.raises(ValueError, match=r"vanish at 32x48 .*--height"):
        _rows(_unit(tmp_path, height_px=32), tmp_path / "out", COLORS)


def test_features_that_are_not_finite_are_refused(davis: Path, tmp_path: Path) -> None:
    broken = Source("flowfeat", Pixels(), lambda e: Features(e.low_bdgf, torch.full_like(e.images_bchw, torch.nan)))
    with pytest.raises(ValueError, match="not finite"):
        _rows(_unit(davis, "boxes"), tmp_path, broken)


@pytest.mark.parametrize("task", [vos.LinearVos, KnnVos])
def test_objects_that_appear_later(tmp_path: Path, task: type[vos.LinearVos | KnnVos]) -> None:
    """A label above those of frame 0 is no object of the benchmark; one that frame 0 leaves out below its largest is, and found
    nowhere: both are scored without a failure, and the object that is there as if it were alone."""
    write_sequence(tmp_path / "plain", "boxes")
    write_sequence(tmp_path / "later", "boxes")
    folder = tmp_path / "later" / "Annotations" / "480p" / "boxes"
    for index, path in enumerate(sorted(folder.iterdir())):
        labels = np.array(Image.open(path))
        if index == 0:
            labels[labels == 1] = 0
        else:
            labels[:4, :4] = 3
        write_labels(path, labels)
    rows = {}
    for root in ("plain", "later"):
        (unit,) = task(root=tmp_path / root, height_px=64).units()
        rows[root] = _rows(unit, tmp_path / "out", COLORS)
    assert [row.part for row in rows["later"]] == ["1", "2"]
    assert rows["later"][0].values["J"] == 0
    assert rows["later"][1].values["J"] > 0.9 * rows["plain"][1].values["J"]


def test_an_object_that_leaves_is_right_when_it_is_nowhere(tmp_path: Path) -> None:
    """Masks that are empty on both sides agree; the sizes here are no multiples of anything."""
    write_sequence(tmp_path, "odd", size=(61, 93), frames=4)
    for index in (1, 2):
        path = tmp_path / "Annotations" / "480p" / "odd" / f"{index:05d}.png"
        write_labels(path, np.zeros((61, 93), np.uint8))
        Image.new("RGB", (93, 61), (110, 110, 110)).save(tmp_path / "JPEGImages" / "480p" / "odd" / f"{index:05d}.jpg")
    for row in _rows(_unit(tmp_path, height_px=61), tmp_path / "out", COLORS):
        assert row.values["J"] == row.values["F"] == 1.0

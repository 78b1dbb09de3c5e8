"""The segmentation probe: sizes, labels, and scores on problems whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from probes.data import davis as layouts
from probes.drawing import SequencePictures, display_size
from probes.sources.flowfeat import Features
from probes.tasks import vos
from tests.probes.small_davis import write_labels, write_sequence
from trainer import FlowFeat


class Silent:
    def begin(self, sequences: int, steps: int) -> None: ...
    def note(self, line: str) -> None: ...
    def step(self, sequence: str, steps: int) -> None: ...
    def sequence_done(self, *given: object) -> None: ...


class Colours:
    """Features that are the picture itself: a linear layer separates red, blue and grey."""

    name = "flowfeat"

    def __call__(self, images_bchw: torch.Tensor) -> Features:
        return Features(torch.zeros(len(images_bchw), 5, 4, 6), images_bchw)


class Constant(Colours):
    """Features that say nothing."""

    def __call__(self, images_bchw: torch.Tensor) -> Features:
        return Features(torch.zeros(len(images_bchw), 5, 4, 6), torch.ones_like(images_bchw))


@pytest.mark.parametrize(
    ("height", "frame", "patch", "expected"),
    [
        (480, (480, 854), 16, (480, 832)),
        (480, (480, 854), 14, (476, 840)),
        (480, (480, 910), 16, (480, 896)),
        (480, (480, 910), 8, (480, 896)),
        (480, (1080, 1920), 16, (480, 832)),
        (480, (1080, 1920), 14, (476, 840)),
        (128, (480, 854), 16, (128, 224)),
        (128, (480, 854), 8, (128, 224)),
        (240, (480, 854), 14, (224, 392)),
        (480, (854, 480), 16, (480, 256)),
        (128, (400, 20), 16, (128, 32)),
    ],
)
def test_input_size(height: int, frame: tuple[int, int], patch: int, expected: tuple[int, int]) -> None:
    assert vos.input_size(height, *frame, patch) == expected


def test_too_small_a_height_is_refused() -> None:
    with pytest.raises(ValueError, match="patch 16 needs at least 32"):
        vos.input_size(31, 480, 854, 16)


def test_labels_are_taken_at_cell_centres() -> None:
    labels = np.zeros((16, 16), np.uint8)
    labels[9:, 9:] = 3
    grid = vos.labels_for(Features(torch.zeros(1, 2, 2, 2)), labels)
    assert grid.tolist() == [[0, 0], [0, 3]], "the corner (8, 8) of the last cell is background, its centre isn't"
    full = vos.labels_for(Features(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 16, 16)), labels)
    assert np.array_equal(full.numpy(), labels)


def _scores(sequence: layouts.Sequence, source: object, model: FlowFeat, out: Path) -> list:
    pictures = SequencePictures(out, sequence.name, display_size(sequence.height, sequence.width))
    settings = vos.Settings(height_px=64)
    scored = vos.evaluate_sequence(sequence, [source], model, settings, torch.device("cpu"), pictures, Silent())  # type: ignore[list-item]
    return scored["flowfeat"]


def test_separable_objects_are_found(davis: Path, tiny: FlowFeat, tmp_path: Path) -> None:
    (sequence,) = layouts.open_davis(davis, sequences=["boxes"])
    for score in _scores(sequence, Colours(), tiny, tmp_path):
        assert score.J.mean > 0.95
        assert score.F.mean > 0.95
        assert score.J.recall == 1.0


def test_features_without_information_find_nothing(davis: Path, tiny: FlowFeat, tmp_path: Path) -> None:
    (sequence,) = layouts.open_davis(davis, sequences=["boxes"])
    for score in _scores(sequence, Constant(), tiny, tmp_path):
        assert score.J.mean == 0.0
        assert score.F.mean == 0.0


def test_first_and_last_frame_are_not_scored(tmp_path: Path, tiny: FlowFeat) -> None:
    """Spoiling the annotation of the last frame changes nothing; that of the last but one does."""
    write_sequence(tmp_path, "boxes")
    root = tmp_path / "Annotations" / "480p" / "boxes"

    def mean() -> float:
        (sequence,) = layouts.open_davis(tmp_path)
        return _scores(sequence, Colours(), tiny, tmp_path / "out")[0].J.mean

    before = mean()
    (root / "00005.png").write_bytes((root / "00000.png").read_bytes())
    assert mean() == before
    (root / "00004.png").write_bytes((root / "00000.png").read_bytes())
    assert mean() < before


def test_batches_cover_every_scored_frame_once() -> None:
    assert [list(batch) for batch in vos.batches(1, 7, 4)] == [[1, 2, 3, 4], [5, 6]]


def test_settings_are_checked() -> None:
    for wrong in ({"height_px": 0}, {"iterations": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            vos.Settings(**wrong)


def test_objects_that_vanish_at_the_input_size_are_refused(tmp_path: Path, tiny: FlowFeat) -> None:
    write_sequence(tmp_path, "boxes", frames=3)
    labels = np.zeros((64, 96), np.uint8)
    labels[0, 0] = 1
    write_labels(tmp_path / "Annotations" / "480p" / "boxes" / "00000.png", labels)
    (sequence,) = layouts.open_davis(tmp_path)
    source = Colours()
    pictures = SequencePictures(tmp_path / "out", "boxes", (96, 64))
    with pytest.raises(ValueError, match=r"vanish at 32x48 .*--height"):
        vos.evaluate_sequence(
            sequence, [source], tiny, vos.Settings(height_px=32), torch.device("cpu"), pictures, Silent()
        )

"""Pictures of a segmented video: crops show the video's own pixels at an outline, clips every frame that was predicted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.clip import frames_in
from common.feature_colors import ColorBasis
from probes.data.davis import open_sequence
from probes.report.pictures import PictureFolder
from probes.sources.features import Features, Source
from probes.task import Context
from probes.tasks.vos_pictures import CROP_PX, CROP_TIMES, VideoPictures, boundary_box

SOURCE = Source("flowfeat", None, None)  # type: ignore[arg-type]


def drawn(davis: Path, out: Path, *, filmed: bool) -> set[str]:
    """File names of what is drawn of a video whose prediction is the annotation."""
    sequence = open_sequence(davis, "480p", "boxes")
    folder = PictureFolder(out, "vos", "boxes")
    pictures = VideoPictures(sequence, Context(torch.device("cpu"), 0, folder, lambda steps: None), filmed=filmed)
    features = Features(torch.rand(1, 4, 8, 12), torch.rand(1, 8, 64, 96))
    assert features.high_bkhw is not None
    basis = ColorBasis.fit(features.high_bkhw[0])
    for index in range(1, len(sequence) - 1):
        image, labels = sequence.image(index), sequence.labels(index)
        pictures.frame(index, image, labels)
        pictures.predicted(index, SOURCE, image, labels, basis, features)
    pictures.finish()
    return {Path(one.file).name for one in folder.saved}


def test_crops_hold_the_videos_own_pixels(davis: Path, tmp_path: Path) -> None:
    names = drawn(davis, tmp_path, filmed=False)
    assert not any(name.endswith(".mp4") for name in names)
    crops = {name.split(".", 1)[1] for name in names if name.endswith(".png")}
    assert crops == {
        "frame, full resolution.png",
        "annotation, full resolution.png",
        "flowfeat.mask, full resolution.png",
        "flowfeat.features, full resolution.png",
    }
    sequence = open_sequence(davis, "480p", "boxes")
    box = boundary_box(sequence.labels(2))
    assert box is not None
    crop = np.asarray(Image.open(tmp_path / "pictures/vos/boxes/00002.frame, full resolution.png"))
    assert crop.shape == (CROP_TIMES * CROP_PX, CROP_TIMES * CROP_PX, 3)
    np.testing.assert_array_equal(crop[::CROP_TIMES, ::CROP_TIMES], np.asarray(sequence.image(2).crop(box)))


def test_clips_hold_every_predicted_frame(davis: Path, tmp_path: Path) -> None:
    names = drawn(davis, tmp_path, filmed=True)
    clips = sorted(name for name in names if name.endswith(".mp4"))
    assert clips == ["clips.flowfeat.features, clip.mp4", "clips.flowfeat.mask, clip.mp4"]
    assert [frames_in(tmp_path / "pictures/vos/boxes" / name) for name in clips] == [4, 4]


@pytest.mark.parametrize("place", [(0, 0), (63, 95), (30, 50)])
def test_a_box_is_whole_and_holds_an_outline(place: tuple[int, int]) -> None:
    labels = np.zeros((80, 100), np.uint8)
    labels[place] = 3
    box = boundary_box(labels)
    assert box is not None
    left, top, right, bottom = box
    assert left >= 0 and top >= 0 and right <= 100 and bottom <= 80 and right - left == bottom - top == CROP_PX
    assert len(np.unique(labels[top:bottom, left:right])) == 2


def test_a_box_of_a_small_video_and_of_an_empty_frame() -> None:
    labels = np.zeros((20, 30), np.uint8)
    assert boundary_box(labels) is None
    labels[5:9, 5:9] = 1
    assert boundary_box(labels) == (0, 0, 30, 20)

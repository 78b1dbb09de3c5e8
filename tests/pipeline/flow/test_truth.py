"""The `truth` estimator: flow of windows from scene records, and an estimator that sees only pixels agrees with it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.flow.estimator import ESTIMATORS, EstimatorOptions, choose, create
from pipeline.synth import GENERATOR_VERSION, Scene, generate
from pipeline.video.decord_library import decord
from pipeline.window import Window

SIZE, OFFSETS = (120, 162), (-2, -1, 1, 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("truth")
    generate(out, 2, 1, 9, frames=8, size=SIZE)
    return out


def window_of(path: Path, anchor: int, side: int = 224, neighbours: tuple[int, ...] | None = None) -> Window:
    neighbours = neighbours or tuple(anchor + o for o in OFFSETS)
    blank = np.zeros((side, side, 3), np.uint8)
    return Window(
        "id",
        path,
        OFFSETS,
        anchor,
        neighbours,
        0.0,
        (0.0,) * 4,
        blank,
        np.zeros((len(neighbours), side, side, 3), np.uint8),
    )


def test_windows_get_the_flow_of_their_scene(made: Path) -> None:
    assert "truth" in ESTIMATORS
    truth = create("truth")
    videos = [
        made / "videos/synth-00000.mp4",
        made / "videos/synth-00001.mp4",
        made / "davis/JPEGImages/480p/synth-000",
    ]
    scenes = [Scene.create(9, 0, size=SIZE, frames=8), Scene.create(9, 1, size=SIZE, frames=8)]
    scenes.append(Scene.create(9 + 2**32, 0, size=SIZE, frames=8))
    results = truth.estimate([window_of(video, 3) for video in videos])
    for scene, result in zip(scenes, results, strict=True):
        assert result.flow_kchw.shape == (4, 2, 224, 224) and result.flow_kchw.dtype == np.float32
        assert result.confidence_khw is None
        for k, offset in enumerate(OFFSETS):
            np.testing.assert_array_equal(result.flow_kchw[k], scene.flow_on_square(3, 3 + offset))


def test_indices_not_offsets_say_which_frames(made: Path) -> None:
    scene = Scene.create(9, 0, size=SIZE, frames=8)
    window = window_of(made / "videos/synth-00000.mp4", 3, neighbours=(0, 1, 5, 7))
    flow_kchw = create("truth").estimate([window])[0].flow_kchw
    np.testing.assert_array_equal(flow_kchw[0], scene.flow_on_square(3, 0))
    np.testing.assert_array_equal(flow_kchw[3], scene.flow_on_square(3, 7))


def test_other_squares(made: Path) -> None:
    scene = Scene.create(9, 0, size=SIZE, frames=8)
    choice = choose("truth", image_size=100)
    flow_kchw = choice.build().estimate([window_of(made / "videos/synth-00000.mp4", 3, side=60)])[0].flow_kchw
    np.testing.assert_array_equal(flow_kchw[2], scene.flow_on_square(3, 4, image_size=100, flow_size=60))
    assert choice.statement() == {"weights": None, "image_size": 100, "generator_version": GENERATOR_VERSION}


def test_a_record_beside_a_frame_folder_is_found(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clip.v2"
    folder.mkdir()
    record = (made / "videos/synth-00001.scene.json").read_text()
    (tmp_path / "clip.v2.scene.json").write_text(record)
    flow_kchw = create("truth").estimate([window_of(folder, 4)])[0].flow_kchw
    np.testing.assert_array_equal(flow_kchw[0], Scene.create(9, 1, size=SIZE, frames=8).flow_on_square(4, 2))


def test_videos_without_a_usable_record_are_named(made: Path, tmp_path: Path) -> None:
    video = tmp_path / "real.mp4"
    video.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"real\.mp4: exact flow exists only for synthetic videos.*real\.scene\.json"):
        create("truth").estimate([window_of(video, 3)])
    record_path = tmp_path / "real.scene.json"
    for text, complaint in (("{", "cannot be read"), ("[]", "JSON object"), ("{}", "generate it again")):
        record_path.write_text(text)
        with pytest.raises(ValueError, match=rf"real\.scene\.json.*{complaint}"):
            create("truth").estimate([window_of(video, 3)])
    record = json.loads((made / "videos/synth-00000.scene.json").read_text())
    record_path.write_text(json.dumps({**record, "frames": 4}))
    with pytest.raises(ValueError, match="frame 4 is asked for, its scene has 4"):
        create("truth").estimate([window_of(video, 3, neighbours=(1, 2, 3, 4))])


def test_options_without_a_use_are_refused() -> None:
    with pytest.raises(ValueError, match="has no options, got preset"):
        create("truth", EstimatorOptions(extra={"preset": "fast"}))
    with pytest.raises(ValueError, match="no use for weights"):
        create("truth", EstimatorOptions(weights="random:0"))


def test_an_estimator_that_sees_only_pixels_agrees(tmp_path: Path) -> None:
    """DIS on decoded frames, resized by hand to the square: fixes sign, axis order, scale, offset of the crop, frame indices."""
    generate(tmp_path, 3, 0, 31, frames=8, size=(240, 322))
    truth = create("truth")
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    for index in range(3):
        path = tmp_path / "videos" / f"synth-{index:05d}.mp4"
        exact = truth.estimate([window_of(path, 4)])[0].flow_kchw
        frames = decord.VideoReader(str(path)).get_batch(range(8)).asnumpy()
        grey = []
        for frame in frames:
            large = Image.fromarray(frame).resize((int(448 * 322 / 240), 448), Image.Resampling.BILINEAR)
            left = round((large.width - 448) / 2)
            square = large.crop((left, 0, left + 448, 448)).resize((224, 224), Image.Resampling.BILINEAR)
            grey.append(cv2.cvtColor(np.asarray(square), cv2.COLOR_RGB2GRAY))
        for k, offset in enumerate(OFFSETS):
            estimate = dis.calc(grey[4], grey[4 + offset], None).transpose(2, 0, 1)
            epe_px = np.hypot(*(estimate - exact[k]))
            motion_px = np.hypot(*exact[k]).mean()
            assert epe_px.mean() < min(0.6, 0.4 * motion_px)
            assert np.median(epe_px) < 0.3

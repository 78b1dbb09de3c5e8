"""Shot cuts in constructed videos: found where they were made, never crossed by a window, and every drop is counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.video.cut_rule import CutRule, rule_of
from pipeline.video.cuts import crossing, find_cuts
from pipeline.video.datasets import Video
from pipeline.video.decoder import Decoder
from pipeline.video.sampling import valid_anchors
from shards.schema import Settings
from tests.pipeline.video.asking import OFFSETS, ask, file, reject, settings

pytest.importorskip("scenedetect", reason="PySceneDetect is not installed")

WIDTH, HEIGHT = 128, 96
RULES = {"content": CutRule("content", 27.0), "adaptive": CutRule("adaptive", 3.0)}


def shot(number: int, frames: int) -> list[NDArray[np.uint8]]:
    """A coarse random pattern of its own for each number, moving one pixel per frame."""
    rng = np.random.default_rng(number)
    pattern = np.kron(rng.integers(0, 256, (6, 16, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    return [np.ascontiguousarray(np.roll(pattern, frame, axis=1)[:HEIGHT, :WIDTH]) for frame in range(frames)]


def montage(*lengths: int) -> list[NDArray[np.uint8]]:
    return [frame for number, length in enumerate(lengths) for frame in shot(number, length)]


def write(path: Path, frames: list[NDArray[np.uint8]]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("detector", RULES)
@pytest.mark.parametrize("lengths", [(20, 15, 25), (30,), (1, 20), (2, 20), (20, 2), (20, 1)])
def test_cuts_are_found_where_they_are(detector: str, lengths: tuple[int, ...]) -> None:
    """Also at the ends."""
    assert find_cuts(montage(*lengths), RULES[detector]).tolist() == np.cumsum(lengths)[:-1].tolist()


def test_a_single_frame_is_two_cuts_to_the_one_and_one_to_the_other() -> None:
    """What docs/cuts.md says of them: two changes side by side hide each other from a detector that compares neighbours."""
    frames = montage(20, 1, 20)
    assert find_cuts(frames, RULES["content"]).tolist() == [20, 21]
    assert find_cuts(frames, RULES["adaptive"]).tolist() == [21]


def test_large_frames_are_reduced_and_nothing_has_no_cuts() -> None:
    large = [np.kron(frame, np.ones((5, 5, 1), np.uint8)) for frame in montage(6, 6)]
    assert find_cuts(large, RULES["content"]).tolist() == [6]
    assert find_cuts([], RULES["adaptive"]).tolist() == []


def test_windows_on_both_sides_of_a_cut_cross_it() -> None:
    anchors, neighbours = valid_anchors(np.arange(20) / 25, OFFSETS)
    crosses = crossing(anchors, neighbours, np.array([10]))
    assert anchors[crosses].tolist() == [8, 9, 10, 11]
    assert not crossing(anchors, neighbours, np.array([], np.int64)).any()
    anchors, neighbours = valid_anchors(np.arange(20) / 25, (1, 2))
    assert anchors[crossing(anchors, neighbours, np.array([10]))].tolist() == [8, 9]


@pytest.mark.parametrize("detector", RULES)
def test_no_window_of_any_pass_crosses_a_cut(decoder: Decoder, tmp_path: Path, detector: str) -> None:
    video = file(write(tmp_path / "two.mp4", montage(14, 16)))
    wanted = settings(image_size=64, flow_size=32, cut_detector=detector)
    decoded = decoder.windows(video, range(22), wanted)
    facts, anchors = decoded.facts, [one.window.anchor_index for one in decoded.anchors]
    assert (facts.n_frames, facts.n_anchors, facts.n_cuts, facts.n_anchors_across) == (30, 22, 1, 4)
    assert sorted(anchors) == [*range(2, 12), *range(16, 28)]
    plain = decoder.windows(video, range(26), settings(image_size=64, flow_size=32))
    assert plain.facts.n_anchors == 26 and plain.facts.n_cuts == 0


def test_frame_folders_have_cuts_too(decoder: Decoder, tmp_path: Path) -> None:
    for number, frame in enumerate(montage(8, 8)):
        Image.fromarray(frame).save(tmp_path / f"{number:03d}.png")
    (anchor,) = ask(decoder, Video("f", tmp_path, "frames", 24.0), image_size=64, flow_size=32, cut_detector="content")
    assert anchor.window.anchor_index not in (6, 7, 8, 9)


def test_montages_are_rejected_by_reason(decoder: Decoder, tmp_path: Path) -> None:
    """Two seconds with four cuts."""
    video = file(write(tmp_path / "montage.mp4", montage(10, 10, 10, 10, 10)))
    small: dict[str, Any] = {"image_size": 64, "flow_size": 32, "cut_detector": "content"}
    refused = reject(decoder, video, **small, most_cuts_per_minute=60.0)
    assert refused.reason == "many_cuts" and "4 shot cuts in 2.0 s, more than 60 per minute" in refused.detail
    assert len(ask(decoder, video, **small, most_cuts_per_minute=120.0)) == 1
    torn = file(write(tmp_path / "torn.mp4", montage(*[3] * 8)))
    refused = reject(decoder, torn, **small)
    assert refused.reason == "only_across_cuts" and "all of its 20 windows" in refused.detail


def test_a_part_of_a_cut_is_allowed_as_one() -> None:
    rule = replace(RULES["content"], most_per_minute=12.0)
    assert not rule.too_many(2, 10.0) and rule.too_many(3, 10.0)
    assert not rule.too_many(1, 1.0) and rule.too_many(2, 1.0)
    assert not RULES["content"].too_many(1000, 1.0)


def test_settings_without_cuts_say_what_they_always_said() -> None:
    plain = settings()
    assert not [name for name in plain.to_json() if "cut" in name] and rule_of(plain) is None
    on = settings(cut_detector="adaptive", most_cuts_per_minute=12.0)
    assert Settings.from_json(on.to_json()) == on and rule_of(on) == CutRule("adaptive", 3.0, 12.0)
    assert any("cut_detector" in line for line in on.differences(plain))
    for wrong in (
        {"cut_detector": "guess"},
        {"cut_threshold": 3.0},
        {"cut_detector": "content", "cut_threshold": -1.0},
    ):
        with pytest.raises(ValueError, match="cut"):
            settings(**wrong)


def test_a_missing_detector_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.video.cut_rule.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'flowfeat-shards\[cuts\]'"):
        rule_of(settings(cut_detector="content"))

"""The decoder as its caller sees it: windows of the frames that they name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.video.datasets import Video
from pipeline.video.decoder import Decoder
from pipeline.video.geometry import centre_square, shrink_square
from pipeline.video.sampling import draw_anchor
from tests.pipeline.video.asking import OFFSETS, ask, file, reject, settings
from tests.pipeline.video.numbered_videos import HEIGHT, WIDTH, numbered_frame, read_number, write_video


def test_windows_hold_the_frames_that_they_name(decoder: Decoder, clip: Path) -> None:
    decoded = decoder.windows(file(clip), range(12), settings(seed=3, keep_neighbours=True))
    facts = decoded.facts
    assert (facts.n_frames, facts.n_anchors, facts.engine) == (40, 36, "decord")
    assert (facts.width, facts.height) == (WIDTH, HEIGHT)
    assert facts.fps == pytest.approx(25, abs=0.01) and facts.duration_s == pytest.approx(1.6, abs=0.01)
    anchors = list(decoded.anchors)
    assert [anchor.pass_index for anchor in anchors] == list(range(12))
    for anchor in anchors:
        window = anchor.window
        assert window.anchor_index == 2 + draw_anchor(3, "clip", anchor.pass_index, 36)
        assert window.neighbour_indices == tuple(window.anchor_index + k for k in OFFSETS)
        assert window.anchor_time_s == pytest.approx(window.anchor_index / 25, abs=1e-4)
        assert window.neighbour_times_s == pytest.approx([i / 25 for i in window.neighbour_indices], abs=1e-4)
        assert anchor.image_hwc.shape == (448, 448, 3) and window.anchor_hwc.shape == (224, 224, 3)
        assert window.neighbours_khwc.shape == (4, 224, 224, 3) and anchor.neighbour_images_khwc is not None
        of = (WIDTH, HEIGHT)
        assert read_number(anchor.image_hwc, of) == read_number(window.anchor_hwc, of) == window.anchor_index
        assert tuple(read_number(square, of) for square in window.neighbours_khwc) == window.neighbour_indices
        assert tuple(read_number(square, of) for square in anchor.neighbour_images_khwc) == window.neighbour_indices
        assert np.array_equal(shrink_square(anchor.image_hwc, 224), window.anchor_hwc)


def test_a_pass_is_the_same_alone_in_any_company_and_in_another_process(decoder: Decoder, clip: Path) -> None:
    together = {a.pass_index: a for a in ask(decoder, file(clip), [0, 3, 5, 9])}
    with Decoder() as other:
        for p in (9, 3):
            (alone,) = ask(other, file(clip), [p])
            assert alone.window.anchor_index == together[p].window.anchor_index
            assert alone.image_hwc.tobytes() == together[p].image_hwc.tobytes()
            assert alone.window.neighbours_khwc.tobytes() == together[p].window.neighbours_khwc.tobytes()
            assert alone.neighbour_images_khwc is None


def test_more_passes_than_anchors(decoder: Decoder, tmp_path: Path) -> None:
    video = file(write_video(tmp_path / "v.mp4", 6))
    drawn = [anchor.window.anchor_index for anchor in ask(decoder, video, list(range(6)))]
    assert sorted(drawn[:2]) == sorted(drawn[2:4]) == sorted(drawn[4:]) == [2, 3]


def test_variable_rate_neighbours_are_chosen_by_time(decoder: Decoder, tmp_path: Path) -> None:
    """25 frames per second with every second frame of the later part missing: no window may span the gap at double speed."""
    times_ms = [40 * i for i in range(40)] + [1600 + 80 * i for i in range(10)]
    video = file(write_video(tmp_path / "v.mp4", 50, times_ms=times_ms))
    for anchor in ask(decoder, video, list(range(36))):
        gaps_s = np.asarray(anchor.window.neighbour_times_s) - anchor.window.anchor_time_s
        assert np.allclose(gaps_s, np.asarray(OFFSETS) * 0.04, atol=0.0201)
        assert anchor.window.anchor_index <= 40


def test_frame_folders(decoder: Decoder, tmp_path: Path) -> None:
    for i in range(8):
        Image.fromarray(numbered_frame(i)).save(tmp_path / f"{i:05d}.jpg", quality=95)
    (anchor,) = ask(decoder, Video("seq", tmp_path, "frames", 24.0), image_size=64, flow_size=64)
    square_hwc = centre_square(np.asarray(Image.open(tmp_path / f"{anchor.window.anchor_index:05d}.jpg")), 64)
    assert np.array_equal(anchor.image_hwc, square_hwc) and np.array_equal(anchor.window.anchor_hwc, square_hwc)
    (tmp_path / "00005.jpg").write_bytes(b"\xff\xd8\xff broken")
    refused = reject(decoder, Video("seq", tmp_path, "frames", None), passes=[0, 1, 2, 3])
    assert refused.reason == "broken_frame" and "00005.jpg" in refused.detail


def test_arguments_that_make_no_sense(decoder: Decoder, clip: Path) -> None:
    for options, message in (
        ({"offsets": (0, 1)}, "offsets"),
        ({"image_size": 100, "flow_size": 200}, "flow_size"),
        ({"deadline_s": 0.0}, "deadline_s"),
        ({"deadline_s": float("nan")}, "deadline_s"),
        ({"deadline_s": float("inf")}, "deadline_s"),
        ({"passes": [-1]}, "passes"),
    ):
        with pytest.raises(ValueError, match=message):
            ask(decoder, file(clip), **options)


def test_real_clips_decode(decoder: Decoder, shared_dir: Path) -> None:
    """One in six, to save time."""
    paths = sorted((shared_dir / "data" / "videos").iterdir())[::6]
    assert len(paths) >= 9
    for path in paths:
        assert len(ask(decoder, file(path), [0, 1], deadline_s=300.0)) == 2

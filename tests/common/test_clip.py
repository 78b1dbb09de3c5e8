"""Clips: every frame is there and where it belongs, odd sizes are taken, what cannot be written is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from common.clip import frames_in, write_clip


def _frames(count: int, size: tuple[int, int]) -> list[np.ndarray]:
    return [np.full((*size, 3), (20 * index, 90, 255 - 20 * index), np.uint8) for index in range(count)]


def test_frames_come_back_in_order(tmp_path: Path) -> None:
    frames = _frames(7, (37, 51))
    write_clip(tmp_path / "a.mp4", frames, 8)
    assert frames_in(tmp_path / "a.mp4") == 7
    capture = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    for frame in frames:
        _, read = capture.read()
        assert read.shape == (36, 50, 3)
        assert np.abs(read[..., ::-1].reshape(-1, 3).mean(axis=0) - frame[0, 0]).max() < 8
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one size, not none"):
        write_clip(tmp_path / "a.mp4", [], 8)
    with pytest.raises(ValueError, match="one size"):
        write_clip(tmp_path / "a.mp4", [*_frames(1, (8, 8)), *_frames(1, (8, 10))], 8)
    assert not list(tmp_path.iterdir())

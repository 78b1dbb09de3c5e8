"""Stamps that containers and libraries round: an offset stays the number of frames that it says, however far it reaches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.video.decoder import request_of
from pipeline.video.decord_frames import DECORD_ERRORS, DecordFrames
from pipeline.video.messages import DecodeHeader
from pipeline.video.sampling import rate_interval_s, valid_anchors
from pipeline.video.windows import decode
from tests.pipeline.video.asking import file, settings

FAR = (-100, -45, -31, 31, 45, 100)


@pytest.mark.parametrize("fps", [12.5, 23.976, 29.97, 47.952, 59.94, 119.88, 240.0])
@pytest.mark.parametrize("rounded_to_s", [0.001, 1 / 90000])
def test_far_offsets_are_exact_in_rounded_stamps(fps: float, rounded_to_s: float) -> None:
    times_s = np.round(np.arange(900) / fps / rounded_to_s) * rounded_to_s
    for stamps_s in (times_s, times_s.astype(np.float32).astype(np.float64)):
        anchors, neighbours = valid_anchors(stamps_s, FAR)
        assert anchors.tolist() == list(range(100, 800))
        assert np.array_equal(neighbours - anchors[:, None], np.tile(FAR, (700, 1)))


def test_dropped_and_faster_frames_do_not_bend_the_rate() -> None:
    times_s = np.round(np.delete(np.arange(600), [50, 51, 200, 333]) / 29.97, 3)
    assert rate_interval_s(times_s) == pytest.approx(1 / 29.97, rel=2e-4)
    mixed_s = np.concatenate([np.arange(60) / 25, 60 / 25 + np.arange(20) / 50])
    assert rate_interval_s(mixed_s) == pytest.approx(1 / 25)
    assert rate_interval_s(np.zeros(9)) == 0.0 and rate_interval_s(np.array([1.0])) == 0.0


@pytest.mark.parametrize("error", [StopIteration(), IndexError("Out of bound indices")])
def test_pyav_is_asked_where_decord_runs_out_like_a_sequence(
    clip: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    assert isinstance(error, DECORD_ERRORS)

    def read(*_: object) -> None:
        raise error

    monkeypatch.setattr(DecordFrames, "_advance", read)
    header, _ = decode(request_of(file(clip), [0], settings(image_size=96, flow_size=48)))
    assert isinstance(header, DecodeHeader) and header.facts.engine == "pyav"

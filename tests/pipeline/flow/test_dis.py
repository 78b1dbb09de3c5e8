"""The default estimator: direction, channel order, determinism, refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.flow.consistency import round_trip_confidence
from pipeline.flow.estimator import ESTIMATORS, EstimatorOptions, choose, create
from pipeline.window import Window


def texture(side: int = 320) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def window(shifts_px: list[tuple[int, int]], side: int = 224) -> Window:
    """Neighbour k shows the scene moved by (dx, dy): what is at x in the anchor is at x + (dx, dy) there."""
    scene, margin = texture(), 40
    cut = [scene[margin - dy : margin - dy + side, margin - dx : margin - dx + side] for dx, dy in [(0, 0), *shifts_px]]
    k = len(shifts_px)
    return Window(
        "v",
        Path("v.mp4"),
        tuple(range(1, k + 1)),
        0,
        tuple(range(1, k + 1)),
        0.0,
        (0.0,) * k,
        cut[0],
        np.stack(cut[1:]),
    )


def test_flow_points_from_anchor_to_neighbour_in_pixels() -> None:
    shifts = [(6, 0), (0, -4), (-3, 5), (0, 0)]
    (result,) = create("dis").estimate([window(shifts)])
    assert result.flow_kchw.shape == (4, 2, 224, 224) and result.flow_kchw.dtype == np.float32
    assert result.confidence_khw is None
    inner = np.median(result.flow_kchw[:, :, 20:-20, 20:-20], axis=(2, 3))
    assert np.allclose(inner, shifts, atol=0.1)


def test_equal_input_gives_equal_bytes_whatever_came_before() -> None:
    first, second = window([(5, 1), (-2, 0)]), window([(1, -6), (3, 3)])
    estimator = create("dis")
    alone = create("dis").estimate([second])[0].flow_kchw
    assert estimator.estimate([first, second])[1].flow_kchw.tobytes() == alone.tobytes()
    assert estimator.estimate([second, first])[0].flow_kchw.tobytes() == alone.tobytes()


def round_trip_of(missed_px: float, length_px: float = 6.0) -> float:
    """What the formula gives where a flow of that length misses its start by so much."""
    return float(np.exp(-(missed_px**2) / (0.01 * 2 * length_px**2 + 0.5)))


def test_confidence_is_high_where_the_round_trip_closes() -> None:
    moved = window([(6, 0)])
    neighbour = moved.neighbours_khwc.copy()
    neighbour[0, 80:140, 80:140] = np.random.default_rng(1).integers(0, 256, (60, 60, 3))
    broken = Window(**{**moved.__dict__, "neighbours_khwc": neighbour})
    (result,) = create("dis", EstimatorOptions(extra={"confidence": "true"})).estimate([broken])
    assert result.confidence_khw is not None and result.confidence_khw.shape == (1, 224, 224)
    confidence = result.confidence_khw[0]
    assert confidence.min() >= 0 and confidence.max() <= 1
    assert np.median(confidence[20:70, 20:200]) > round_trip_of(missed_px=0.105)
    assert np.median(confidence[95:125, 90:120]) < round_trip_of(missed_px=0.51)
    assert (confidence[:, -4:] == 0).all()  # the flow of 6 px leaves the square there


def test_settings_name_what_shapes_the_output() -> None:
    settings = choose("dis", EstimatorOptions(extra={"preset": "fast"})).statement()
    assert settings == {"preset": "fast", "confidence": False, "opencv": cv2.__version__, "weights": None}


def test_presets_differ() -> None:
    moved = window([(3, 2)])
    flows = {
        p: create("dis", EstimatorOptions(extra={"preset": p})).estimate([moved])[0].flow_kchw.tobytes()
        for p in ("fast", "medium")
    }
    assert flows["fast"] != flows["medium"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EstimatorOptions(weights="raft.pth"), "takes no weights"),
        (EstimatorOptions(device="cuda"), "CPU only"),
        (EstimatorOptions(precision="bf16"), "fp32 only"),
        (EstimatorOptions(extra={"preset": "slow"}), "no preset 'slow'"),
        (EstimatorOptions(extra={"presset": "fast"}), "did you mean preset"),
        (EstimatorOptions(extra={"confidence": "maybe"}), "true or false"),
    ],
)
def test_refused_options(options: EstimatorOptions, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create("dis", options)


def test_small_squares_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="at least 12 px, got 8"):
        create("dis").estimate([window([(0, 0)], side=8)])


def test_an_unknown_name_gets_the_nearest_one() -> None:
    assert "dis" in ESTIMATORS
    with pytest.raises(ValueError, match="did you mean"):
        create("diss")


def test_confidence_is_that_of_the_networks_round_trip() -> None:
    """One formula for all estimators: the column `confidence` must not mean different things in different sets."""
    pair = window([(6, 3)])
    back = Window(**{**pair.__dict__, "anchor_hwc": pair.neighbours_khwc[0], "neighbours_khwc": pair.anchor_hwc[None]})
    forward, backward = (create("dis").estimate([w])[0].flow_kchw for w in (pair, back))
    choice = choose("dis", EstimatorOptions(extra={"confidence": "true"}))
    (result,) = choice.build().estimate([pair])
    expected = round_trip_confidence(torch.from_numpy(forward), torch.from_numpy(backward)).numpy()
    assert result.confidence_khw is not None and np.array_equal(result.confidence_khw, expected)
    assert choice.statement()["confidence"] == "round-trip", "sets made with the old formula are not extended"


def test_without_confidence_torch_is_not_needed() -> None:
    code = "import sys; from pipeline.flow.estimator import choose; choose('dis').build(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0

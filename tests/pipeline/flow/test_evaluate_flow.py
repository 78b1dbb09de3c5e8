"""Accuracy: layouts are found, errors computed by hand come out, DIS lands where OpenCV's own check has it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from pipeline.flow.cli import commands
from pipeline.flow.dis import DisChoice
from pipeline.flow.estimator import EstimatorOptions, create
from pipeline.flow.evaluate import by_set, find_pairs, pair_window, read_frame, score_pair
from pipeline.flow.files import read_flow, write_flow
from pipeline.window import Window, WindowFlow


class Fixed:
    """An estimator that always answers the same."""

    name = "fixed"

    def __init__(self, flow_chw: NDArray[np.float32]) -> None:
        self.flow_chw = flow_chw

    def estimate(self, windows: Sequence[Window]) -> list[WindowFlow]:
        return [WindowFlow(self.flow_chw[None]) for _ in windows]


def image(path: Path, height: int = 20, width: int = 30, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))


def truth(path: Path, flow: NDArray[np.float32] | None = None, known: NDArray[np.bool_] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_flow(path, np.zeros((2, 20, 30), np.float32) if flow is None else flow, known)


def all_layouts(root: Path) -> None:
    """One pair in every layout, and things that are no pairs."""
    for n in (10, 11):
        image(root / f"mb/other-data/Venus/frame{n}.png")
    truth(root / "mb/other-gt-flow/Venus/flow10.flo")
    truth(root / "mb/other-gt-flow/Alone/flow10.flo")
    for name in ("00001_img1.ppm", "00001_img2.ppm", "0000007-img0.ppm", "0000007-img1.ppm", "00002_img1.ppm"):
        image(root / "chairs" / name)
    for name in ("00001_flow.flo", "0000007-gt.flo", "00002_flow.flo"):
        truth(root / "chairs" / name)
    for n in (10, 11):
        image(root / f"kitti15/training/image_2/000003_{n}.png")
        image(root / f"kitti12/training/colored_0/000004_{n}.png")
    truth(root / "kitti15/training/flow_occ/000003_10.png")
    truth(root / "kitti12/training/flow_occ/000004_10.png")
    for n in (1, 2, 3):
        for rendering in ("clean", "final"):
            image(root / f"sintel/training/{rendering}/alley_1/frame_{n:04d}.png")
    truth(root / "sintel/training/flow/alley_1/frame_0001.flo")
    truth(root / "sintel/training/flow/alley_1/frame_0002.flo")
    for n in (6, 7):
        image(root / f"things/frames_cleanpass/TRAIN/A/0000/left/{n:04d}.png")
    truth(root / "things/optical_flow/TRAIN/A/0000/into_future/left/OpticalFlowIntoFuture_0006_L.pfm")
    for n in (1, 2):
        image(root / f"mine/x/frame{n}.png")
    truth(root / "mine/x/flow_gt.flo")


def test_layouts_are_found(tmp_path: Path) -> None:
    all_layouts(tmp_path)
    pairs = find_pairs(tmp_path)
    assert [(pair.set_name, pair.name) for pair in pairs] == [
        ("flyingchairs (chairs)", "0000007"),
        ("flyingchairs (chairs)", "00001"),
        ("flyingthings (things)", "TRAIN/A/0000/left/0006"),
        ("kitti (kitti12/training)", "000004"),
        ("kitti (kitti15/training)", "000003"),
        ("middlebury (mb)", "Venus"),
        ("plain (mine/x)", "x"),
        ("sintel (sintel/training) clean", "alley_1/0001"),
        ("sintel (sintel/training) clean", "alley_1/0002"),
        ("sintel (sintel/training) final", "alley_1/0001"),
        ("sintel (sintel/training) final", "alley_1/0002"),
    ]
    assert pairs[-1].first.name == "frame_0002.png" and pairs[-1].second.name == "frame_0003.png"
    assert all(score_pair(Fixed(np.zeros((2, 20, 30), np.float32)), pair).epe_px == 0 for pair in pairs)


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no flow ground truth under"):
        find_pairs(tmp_path)
    with pytest.raises(ValueError, match="no directory"):
        find_pairs(tmp_path / "absent")


def test_errors_by_hand(tmp_path: Path) -> None:
    """Truth (100, 0) everywhere, a quarter unknown. Estimates are off by 0, 2, 4 and 8 px in equal parts of what is known."""
    flow = np.zeros((2, 20, 30), np.float32)
    flow[0] = 100
    known = np.ones((20, 30), np.bool_)
    known[:, 24:] = False
    estimate = flow.copy()
    estimate[1, :, 6:12], estimate[1, :, 12:18], estimate[0, :, 18:24], estimate[:, :, 24:] = 2, 4, 108, 999
    for n in (1, 2):
        image(tmp_path / f"x/frame{n}.png")
    truth(tmp_path / "x/flow_gt.png", flow, known)
    score = score_pair(Fixed(estimate), find_pairs(tmp_path)[0])
    assert score.epe_px == pytest.approx((0 + 2 + 4 + 8) / 4)
    assert score.known_pixels == 480
    assert score.over_1px == 360, "2, 4 and 8 px are more than one"
    assert score.fl_outliers == 120, "4 px is more than 3 but not more than 5 % of 100 px"
    estimate[0, 0, 0] = np.nan
    holed = score_pair(Fixed(estimate), find_pairs(tmp_path)[0])
    assert (holed.non_finite, holed.fl_outliers, holed.over_1px) == (1, 121, 361)
    table = by_set([score, holed])
    assert table[-1].name == "total" and table[-1].pairs == 2
    assert table[-1].fl_all_percent == pytest.approx(100 * 241 / 960)


def test_frames_and_truth_must_agree_in_size(tmp_path: Path) -> None:
    image(tmp_path / "x/frame1.png")
    image(tmp_path / "x/frame2.png", height=24)
    truth(tmp_path / "x/flow_gt.flo")
    with pytest.raises(ValueError, match="differ in size"):
        score_pair(Fixed(np.zeros((2, 20, 30), np.float32)), find_pairs(tmp_path)[0])


@pytest.mark.parametrize(("preset", "rmse_px"), [("ultrafast", 0.86), ("fast", 0.74), ("medium", 0.49)])
def test_dis_lands_where_opencv_says(preset: str, rmse_px: float, shared_dir: Path) -> None:
    """OpenCV's accuracy test bounds the root mean square error on Middlebury's RubberWhale for every preset."""
    root = shared_dir / "data" / "flow_gt" / "middlebury"
    truth_chw, known = read_flow(root / "other-gt-flow" / "RubberWhale" / "flow10.flo")
    frames = [read_frame(root / "other-data" / "RubberWhale" / f"frame{n}.png") for n in (10, 11)]
    flow = (
        create("dis", EstimatorOptions(extra={"preset": preset}))
        .estimate([pair_window(frames[0], frames[1], root)])[0]
        .flow_kchw[0]
    )
    reached = float(np.sqrt(((flow - truth_chw) ** 2).sum(axis=0)[known].mean()))
    assert 0.9 * rmse_px < reached <= rmse_px


def run(*arguments: object) -> Result:
    return CliRunner().invoke(commands, [str(argument) for argument in arguments])


def test_evaluate_command(tmp_path: Path, shared_dir: Path) -> None:
    done = run("evaluate-flow", "--flow", "dis", "--data", shared_dir / "data/flow_gt/middlebury", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["estimator"] == "dis" and report["skipped"] == []
    total = report["sets"][-1]
    assert (total["name"], total["pairs"]) == ("total", 4)
    assert total["epe_px"] == pytest.approx(0.336, abs=0.01)


def test_evaluate_command_counts_what_it_could_not_score(tmp_path: Path) -> None:
    all_layouts(tmp_path)
    done = run("evaluate-flow", "--flow", "raft-small", "--weights", "random:0", "--data", tmp_path / "mine")
    assert done.exit_code == 1 and "too small" in done.output and "1 of 1 pairs could not be scored" in done.output
    assert run("evaluate-flow", "--flow", "dis", "--data", tmp_path / "absent").exit_code == 1


class Patchy(Fixed):
    """Finite flow for square frames, none at all for others."""

    def estimate(self, windows: Sequence[Window]) -> list[WindowFlow]:
        shapes = [window.anchor_hwc.shape[:2] for window in windows]
        return [
            WindowFlow(np.full((1, 2, *shape), 1.0 if shape[0] == shape[1] else np.nan, np.float32)) for shape in shapes
        ]


def patchy_pairs(root: Path) -> None:
    """Two square pairs of one set, and one that is not square; the true flow is 0."""
    for set_name, height, width in (("a", 20, 20), ("b", 20, 30), ("c", 20, 20)):
        for n in (10, 11):
            image(root / f"other-data/{set_name}/frame{n}.png", height, width)
        truth(root / f"other-gt-flow/{set_name}/flow10.flo", np.zeros((2, height, width), np.float32))


def test_a_pair_without_finite_flow_leaves_the_others_their_figures(tmp_path: Path) -> None:
    patchy_pairs(tmp_path)
    scores = [score_pair(Patchy(np.zeros(0, np.float32)), pair) for pair in find_pairs(tmp_path)]
    assert [score.epe_px for score in scores] == [pytest.approx(2**0.5), None, pytest.approx(2**0.5)]
    total = by_set(scores)[-1]
    assert total.epe_px == pytest.approx(2**0.5) and (total.pairs, total.without_flow) == (3, 1)
    assert total.fl_all_percent == pytest.approx(100 * 600 / 1400), "its pixels are outliers all the same"
    nothing = by_set([scores[1]])[-1]
    assert nothing.epe_px is None and nothing.without_flow == 1


def test_the_report_is_json_even_where_nothing_is_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    patchy_pairs(tmp_path)
    patchy = Patchy(np.zeros(0, np.float32))
    monkeypatch.setattr(DisChoice, "build", lambda self: patchy)
    done = run("evaluate-flow", "--flow", "dis", "--data", tmp_path, "--json")
    assert done.exit_code == 1 and "1 of 3 pairs" in done.stderr
    report = json.loads(done.stdout, parse_constant=refuse)
    assert [pair["epe_px"] is None for pair in report["pairs"]] == [False, True, False]
    assert report["sets"][-1]["without_flow"] == 1
    shown = run("evaluate-flow", "--flow", "dis", "--data", tmp_path, "--per-pair")
    assert "nan" not in shown.stdout.lower() and "middlebury, b: no finite flow" in shown.stderr

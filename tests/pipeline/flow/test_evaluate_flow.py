"""Accuracy: layouts are found, errors computed by hand come out, DIS lands where OpenCV's own check has it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from pipeline.flow.cli import commands
from pipeline.flow.estimator import EstimatorOptions, create
from pipeline.flow.evaluate import by_set, find_pairs, pair_window, read_frame, score_pair
from pipeline.flow.files import read_flow, write_flow
from pipeline.window import Window, WindowFlow
from tests.pipeline.flow.flow_stand_in import moving_pair


class Fixed:
    """An estimator that always answers the same."""

    name = "fixed"

    def __init__(self, flow_chw: NDArray[np.float32]) -> None:
        self.flow_chw = flow_chw

    def estimate(self, windows: list[Window]) -> list[WindowFlow]:
        return [WindowFlow(self.flow_chw[None]) for _ in windows]


def picture(path: Path, height: int = 20, width: int = 30, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))


def truth(path: Path, flow: NDArray[np.float32] | None = None, known: NDArray[np.bool_] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_flow(path, np.zeros((2, 20, 30), np.float32) if flow is None else flow, known)


def all_layouts(root: Path) -> None:
    """One pair in every layout, and things that are no pairs."""
    for n in (10, 11):
        picture(root / f"mb/other-data/Venus/frame{n}.png")
    truth(root / "mb/other-gt-flow/Venus/flow10.flo")
    truth(root / "mb/other-gt-flow/Alone/flow10.flo")
    for name in ("00001_img1.ppm", "00001_img2.ppm", "0000007-img0.ppm", "0000007-img1.ppm", "00002_img1.ppm"):
        picture(root / "chairs" / name)
    for name in ("00001_flow.flo", "0000007-gt.flo", "00002_flow.flo"):
        truth(root / "chairs" / name)
    for n in (10, 11):
        picture(root / f"kitti15/training/image_2/000003_{n}.png")
        picture(root / f"kitti12/training/colored_0/000004_{n}.png")
    truth(root / "kitti15/training/flow_occ/000003_10.png")
    truth(root / "kitti12/training/flow_occ/000004_10.png")
    for n in (1, 2, 3):
        for rendering in ("clean", "final"):
            picture(root / f"sintel/training/{rendering}/alley_1/frame_{n:04d}.png")
    truth(root / "sintel/training/flow/alley_1/frame_0001.flo")
    truth(root / "sintel/training/flow/alley_1/frame_0002.flo")
    for n in (6, 7):
        picture(root / f"things/frames_cleanpass/TRAIN/A/0000/left/{n:04d}.png")
    truth(root / "things/optical_flow/TRAIN/A/0000/into_future/left/OpticalFlowIntoFuture_0006_L.pfm")
    for n in (1, 2):
        picture(root / f"mine/x/frame{n}.png")
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
        picture(tmp_path / f"x/frame{n}.png")
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
    picture(tmp_path / "x/frame1.png")
    picture(tmp_path / "x/frame2.png", height=24)
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


def test_flow_command_on_pictures(tmp_path: Path) -> None:
    frames = moving_pair(140, 200, 5)
    for name, frame in zip("ab", frames, strict=True):
        cv2.imwrite(str(tmp_path / f"{name}.png"), frame[..., ::-1])
    sources = (tmp_path / "a.png", tmp_path / "b.png")
    done = run("flow", *sources, "--flow", "dis", "--out", tmp_path / "flow.png")
    assert done.exit_code == 0 and "px on average" in done.output
    drawn = cv2.imread(str(tmp_path / "flow.png"))
    assert drawn.shape == (140, 200, 3) and drawn.std() > 5
    assert run("flow", *sources, "--flow", "dis", "--out", tmp_path / "flow.flo").exit_code == 0
    full, _ = read_flow(tmp_path / "flow.flo")
    assert run("flow", *sources, "--flow", "dis", "--max-side", 150, "--out", tmp_path / "small.flo").exit_code == 0
    small, _ = read_flow(tmp_path / "small.flo")
    assert small.shape == full.shape
    assert np.linalg.norm(small - full, axis=0).mean() < 0.5, "shrinking keeps flow in pixels of the full size"
    net = run("flow", *sources, "--flow", "sea-raft-s", "--weights", "random:0", "--out", tmp_path / "net.kitti.png")
    assert net.exit_code == 0, net.output
    assert read_flow(tmp_path / "net.kitti.png")[0].shape == (2, 140, 200)


def test_flow_command_on_a_video(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 128))
    for frame in [f for seed in range(6) for f in moving_pair(128, 160, seed)]:
        writer.write(frame)
    writer.release()
    done = run("flow", tmp_path / "in.avi", "--flow", "dis", "--out", tmp_path / "out.mp4", "--max-frames", 10)
    assert done.exit_code == 0 and "10 pairs" in done.output
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    frames = 0
    while capture.read()[0]:
        frames += 1
    assert frames == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("flow", "a.png", "b.png", "--flow", "dis", "--out", "x.png"), "no picture at a.png"),
        (("flow", "a.mp4", "--flow", "dis", "--out", "x.mp4"), "no video at a.mp4"),
        (("flow", "a.mp4", "--flow", "dis", "--out", "x.png"), "a video becomes a video"),
        (("flow", "a.png", "--flow", "dis", "--out", "x.png"), "two pictures or one video"),
        (
            (
                "flow",
                "a.png",
                "b.png",
                "--flow",
                "raft",
                "--weights",
                "random:0",
                "--flow-option",
                "x",
                "--out",
                "x.png",
            ),
            "NAME=VALUE",
        ),
        (("flow", "a.png", "b.png", "--flow", "rafd", "--out", "x.png"), "did you mean raft"),
        (
            ("flow", "a.png", "b.png", "--flow", "raft", "--weights", "/no.pth", "--out", "x.png"),
            "no weights file at /no.pth",
        ),
        (("weights", "get", "raft-sintl"), "did you mean raft-sintel"),
        (("weights", "convert-smurf", "nowhere"), "no TensorFlow checkpoint"),
        (("compare-precision", "--flow", "raft-small", "--weights", "random"), "random:SEED"),
    ],
)
def test_mistakes_are_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == 1 and message in done.output and "Traceback" not in done.output
    assert done.output.count("\n") == 1


def test_weights_command_lists_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path))
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow" / "raft_small_C_T_V1-ad48884c.pth").write_bytes(b"x")
    listed = {entry["name"]: entry for entry in json.loads(run("weights", "--json").stdout)}
    assert listed["raft-small-things"]["present"] and not listed["raft-sintel"]["present"]
    assert listed["sea-raft-m-spring"]["url"].startswith("https://") and listed["raft-sintel"]["licence"]
    table = run("weights").output
    assert all(name in table for name in ("sea-raft-m-spring", "0b8c9e55", "BSD-3-Clause", "smurf-kitti"))


def test_compare_precision_command() -> None:
    done = run("compare-precision", "--flow", "raft-small", "--weights", "random:0", "--side", 128, "--json")
    assert done.exit_code == 0, done.output
    rows = {row["mode"]: row for row in json.loads(done.stdout)}
    assert rows["fp32"]["max_epe_px"] == 0
    assert rows["fp32 channels_last"]["max_epe_px"] < 1e-3 < rows["bf16"]["max_epe_px"]
    assert rows["bf16"]["mean_epe_px"] < 0.1 * rows["bf16"]["mean_motion_px"]

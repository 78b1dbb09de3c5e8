"""Depth scores: stored values; normals of planes and spheres, whose normals are known in closed form; and mutants."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from probes.metrics import depth
from tests.probes.mutants import Check, noticed

DATA = Path(__file__).resolve().parents[2] / "data"


def check_parity(module: ModuleType) -> None:
    with np.load(DATA / "parity_depth_metrics_losses.npz") as fixture:
        truth, predicted = fixture["gt"][:, 0], fixture["pred"][:, 0]
        plain, aligned = fixture["metrics_d1_d2_d3_rmse"], fixture["metrics_d1_d2_d3_rmse_scale_shift"]
    zeroed = np.where(truth > 10, 0, truth)
    for picture, (t, p) in enumerate(zip(truth, predicted, strict=True)):
        for score, stored in (
            (module.score_depth(p, t, 10.0), plain),
            (module.score_depth(p, zeroed[picture]), plain),
            (module.score_depth(module.scale_and_shift(p, t, 10.0), t, 10.0), aligned),
        ):
            got = [score.delta1, score.delta2, score.delta3, score.rmse_m]
            assert np.allclose(got, stored[:, picture], rtol=1e-4, atol=0)


def check_scores_by_hand(module: ModuleType) -> None:
    truth = np.array([[1.0, 1.0, 1.0, 1.0, 0.0, 20.0]])
    predicted = np.array([[1.2, 1 / 1.5, -1.0, 0.0, 9.0, 9.0]])
    score = module.score_depth(predicted, truth, 10.0)
    assert (score.delta1, score.delta2, score.delta3) == (0.25, 0.5, 0.5)
    assert score.rmse_m == pytest.approx(np.sqrt((0.04 + (1 / 3) ** 2 + 4 + 1) / 4))
    assert module.score_depth(np.full((1, 1), 1.25), np.ones((1, 1))).delta1 == 0  # strictly less
    assert module.score_depth(predicted, np.zeros_like(truth)) is None
    assert module.score_depth(np.full((1, 1), 10.0), np.full((1, 1), 10.0), 10.0).delta1 == 1


def check_alignment(module: ModuleType) -> None:
    """Any affine function of the truth is brought back to it; a constant goes to the mean; invalid pixels have no say."""
    truth = np.random.default_rng(0).uniform(1, 9, (6, 7))
    distorted = (truth - 2) / 3
    distorted[0, 0], truth[0, 0] = 50, 0
    assert np.allclose(module.scale_and_shift(distorted, truth)[truth > 0], truth[truth > 0])
    assert np.allclose(module.scale_and_shift(1e-3 * distorted, truth)[truth > 0], truth[truth > 0])
    assert np.allclose(module.scale_and_shift(np.full((6, 7), 4.0), truth), truth[truth > 0].mean())


def rays(camera: depth.Camera, h: int, w: int) -> np.ndarray:
    y, x = np.mgrid[0:h, 0:w]
    return np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, np.ones((h, w))], axis=-1)


CAMERA = depth.Camera(fx=90.0, fy=110.0, cx=30.5, cy=22.0)


def check_planes(module: ModuleType) -> None:
    """n . P = c: depth c / (n . ray), and the normal is n at every pixel that has neighbours, for any step."""
    camera = module.Camera(CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy)
    for tilt in ((0, 0, -1), (0.3, 0, -1), (0, -0.4, -1), (-0.5, 0.6, -1)):
        n = np.array(tilt) / np.linalg.norm(tilt)
        z = -3.0 / (rays(CAMERA, 48, 64) @ n)
        for step in (1, 3):
            normals, known = module.surface_normals(z, camera, step=step)
            assert known.sum() == (48 - 2 * step) * (64 - 2 * step)
            assert np.abs(normals[known] - n).max() < 1e-9
            assert np.abs(np.linalg.norm(normals[~known], axis=-1)).max() == 0


def check_sphere(module: ModuleType) -> None:
    """Centre C, radius R: the normal at P is (P - C) / R, to the second order of the pixel's size."""
    camera = module.Camera(CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy)
    centre, radius = np.array([0.1, -0.05, 4.0]), 1.2
    ray = rays(CAMERA, 48, 64)
    a, b, c = (ray**2).sum(-1), ray @ centre, centre @ centre - radius**2
    inside = b**2 - a * c
    z = np.where(inside > 0, (b - np.sqrt(np.maximum(inside, 0))) / a, 0.0)
    normals, known = module.surface_normals(z, camera)
    expected = (z[..., None] * ray - centre) / radius
    middle = known & (inside > 0.35 * inside.max())
    assert middle.sum() > 300
    assert module.angles_deg(normals[middle], expected[middle]).max() < 0.5
    assert (z[known] > 0).all()


def check_edges_and_holes(module: ModuleType) -> None:
    camera = module.Camera(50.0, 50.0, 4.0, 4.0)
    z = np.full((9, 9), 2.0)
    z[4, 4] = 0
    assert module.surface_normals(z, camera)[1].sum() == 49 - 5  # the hole and its four neighbours
    step_edge = np.full((9, 9), 2.0)
    step_edge[:, 5:] = 3.0
    assert module.surface_normals(step_edge, camera)[1].sum() == 49
    assert module.surface_normals(step_edge, camera, largest_jump=0.1)[1].sum() == 49 - 14
    assert module.surface_normals(step_edge, camera, largest_jump=0.5)[1].sum() == 49  # 1 m is half of the nearer 2 m
    rough = np.random.default_rng(1).uniform(0.5, 20, (9, 9))
    normals, known = module.surface_normals(rough, camera)
    assert (
        np.sum(normals * module.points(rough, camera), axis=-1)[known] < 0
    ).all()  # they face the camera whatever it sees
    assert np.abs(module.surface_normals(z, camera)[0][~module.surface_normals(z, camera)[1]]).max() == 0
    assert module.surface_normals(0.1 * z, camera)[1].sum() == 49 - 5
    for shape, step, known_pixels in (((2, 9), 1, 0), ((3, 3), 1, 1), ((6, 9), 3, 0), ((7, 7), 3, 1)):
        assert module.surface_normals(np.ones(shape), camera, step=step)[1].sum() == known_pixels


def check_angles(module: ModuleType) -> None:
    x = np.array([1.0, 0, 0])
    for degrees in (0, 1e-6, 10, 90, 135, 180):
        turned = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), 0])
        assert module.angles_deg(2 * x, turned) == pytest.approx(degrees, abs=1e-12)


def check_scores_of_tilted_planes(module: ModuleType) -> None:
    """A plane turned by a known angle: mean and RMSE are that angle, each share 0 or 1; half missing counts 90 degrees."""
    camera = module.Camera(100.0, 100.0, 15.0, 15.0)
    flat = np.full((32, 32), 2.0)
    turned = {
        11.24: (1, 1, 1),
        11.26: (0, 1, 1),
        22.49: (0, 1, 1),
        22.51: (0, 0, 1),
        29.99: (0, 0, 1),
        30.01: (0, 0, 0),
    }
    for degrees, shares in turned.items():
        n = np.array([np.sin(np.radians(degrees)), 0, -np.cos(np.radians(degrees))])
        score = module.score_normals(-2.0 / (rays(camera, 32, 32) @ n), flat, camera)
        assert (score.mean_deg, score.rmse_deg) == (pytest.approx(degrees), pytest.approx(degrees))
        assert (score.below_11_25, score.below_22_5, score.below_30) == shares
    half = np.where(np.arange(32) < 16, 2.0, -1.0)[None].repeat(32, 0)
    score = module.score_normals(half, flat, camera)
    assert score.below_30 == pytest.approx(14 / 30)  # columns 1 to 14 of 1 to 30 have all neighbours
    assert score.mean_deg == pytest.approx(90 * (1 - score.below_30))
    assert score.rmse_deg == pytest.approx(90 * np.sqrt(1 - score.below_30))
    assert module.score_normals(flat, np.zeros_like(flat), camera) is None
    assert module.score_normals(flat, flat + 20, camera, farthest_m=10.0) is None
    assert module.score_normals(flat, flat + 8, camera, farthest_m=10.0) is not None


def check_mean_over_pictures(module: ModuleType) -> None:
    scores = [module.DepthScores(1.0, 0.5, 0.75, 1.0), module.DepthScores(2.0, 1.0, 0.25, 0.0)]
    scores.append(module.DepthScores(6.0, 0.0, 0.5, 0.5))
    assert module.mean_scores(scores) == module.DepthScores(3.0, 0.5, 0.5, 0.5)


CHECKS = (
    check_parity, check_scores_by_hand, check_alignment, check_planes, check_sphere, check_edges_and_holes, check_angles,
    check_scores_of_tilted_planes, check_mean_over_pictures,
)  # fmt: skip

MUTATIONS = [
    ("valid &= truth_hw <= farthest_m", "valid &= truth_hw >= farthest_m"),
    ("valid = truth_hw > 0", "valid = truth_hw >= 0"),
    ("larger < smaller * 1.25**i", "larger <= smaller * 1.25**i"),
    ("larger < smaller * 1.25**i", "larger / smaller < 1.25**i"),
    ("larger < smaller * 1.25**i", "larger < smaller * 1.25*i"),
    ("larger < smaller * 1.25**i", "predicted < truth * 1.25**i"),
    ("np.sqrt(np.mean((predicted - truth) ** 2))", "np.mean(np.abs(predicted - truth))"),
    ("np.sqrt(np.mean((predicted - truth) ** 2))", "np.mean((predicted - truth) ** 2)"),
    ("if spread > 0 else 1.0", "if spread > 0 else 0.5 * float('nan')"),
    ("- a * float(predicted.mean())", ""),
    ("float(centred @ truth) / spread", "float(predicted @ truth) / float(predicted @ predicted)"),
    ("(x - camera.cx) / camera.fx", "x / camera.fx"),
    ("(y - camera.cy) / camera.fy", "(y - camera.cy) / camera.fx"),
    ("np.cross(down, across)", "np.cross(across, down)"),
    ("place[right] - place[left]", "place[right] - place[middle]"),
    ("good = here > 0", "good = here > -1"),
    ("good &= depth_hw[side] > 0", "pass"),
    ("<= largest_jump * here", "<= largest_jump"),
    ("for side in (left, right, above, below)", "for side in (left, right, above)"),
    ("np.arctan2(sine, np.sum(one_hwc * other_hwc, axis=-1))", "np.arcsin(sine)"),
    ("np.arctan2(sine, np.sum(one_hwc * other_hwc, axis=-1))", "np.arccos(np.sum(one_hwc * other_hwc, axis=-1))"),
    ("expected[scored]), 90.0)", "expected[scored]), 0.0)"),
    ("np.sqrt(np.mean(angles**2))", "np.mean(angles**2)"),
    ("ANGLES_DEG = (11.25, 22.5, 30.0)", "ANGLES_DEG = (11.25, 30.0, 30.0)"),
    ("truth_hw = np.where(truth_hw <= farthest_m, truth_hw, 0)", "pass"),
    ("float(np.mean([getattr", "float(np.median([getattr"),
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_depth_scores(check: Check) -> None:
    check(depth)


@pytest.mark.parametrize(("old", "new"), MUTATIONS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_mutant_is_noticed(old: str, new: str) -> None:
    assert noticed(depth, old, new, CHECKS)


def test_bad_input_is_named() -> None:
    ones = np.ones((3, 4))
    with pytest.raises(ValueError, match=r"\(4, 3\) for a measured one of \(3, 4\)"):
        depth.score_depth(ones.T, ones)
    with pytest.raises(ValueError, match="not finite"):
        depth.score_depth(ones * np.nan, ones)
    with pytest.raises(ValueError, match="no picture was scored"):
        depth.mean_scores([])

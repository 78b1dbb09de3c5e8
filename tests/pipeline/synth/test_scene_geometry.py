"""The geometry of scenes: flow, masks and depth against closed forms and an independent tracker."""

from __future__ import annotations

import cmath
import json
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.synth import CLASSES, Grid, Renderer, Scene, Style
from pipeline.synth.compose import Surface
from pipeline.synth.motion import Camera, Course, Motion, Swing
from pipeline.synth.shapes import Outline
from tests.pipeline.synth.plain_scenes import SMALL, disc, grey_paint, scene_of


def track(scene: Scene, surface: Surface, point: complex, t: float, t2: float) -> complex:
    """Where the surface point at image position `point` in frame t is in frame t2: complex arithmetic, no matrices."""
    side, centre = min(scene.width, scene.height), complex(scene.width / 2, scene.height / 2)
    camera, own, middle = scene.contents.camera, surface.motion, (scene.frames - 1) / 2

    def parts(time: float) -> tuple[complex, complex, complex]:
        tau = time - middle
        lens = side * cmath.exp(camera.zoom * tau + 1j * (camera.roll * tau + camera.roll_sway.at(tau)))
        place = complex(*own.course.at(tau)) + complex(*camera.pan.at(tau)) / surface.depth
        pose = cmath.exp(own.log_scale.at(tau) + 1j * (own.angle + own.spin * tau + own.sway.at(tau)))
        return lens, place, pose

    lens, place, pose = parts(t)
    u = ((point - centre) / lens - place) / pose
    lens, place, pose = parts(t2)
    return centre + lens * (place + pose * u)


def test_a_translating_disc_moves_by_its_speed_and_the_rest_stands() -> None:
    scene = scene_of(disc(1, 4.0, 0.2, Motion(Course(drift=(0.025, -0.0125)))))
    mask, flow = scene.mask(4), scene.flow(4, 6)
    assert abs((mask == 1).sum() - np.pi * (0.2 * 120) ** 2) < 0.01 * np.pi * (0.2 * 120) ** 2
    np.testing.assert_allclose(flow[0][mask == 1], 2 * 0.025 * 120, atol=1e-5)
    np.testing.assert_allclose(flow[1][mask == 1], 2 * -0.0125 * 120, atol=1e-5)
    np.testing.assert_allclose(flow[:, mask == 0], 0.0, atol=1e-5)
    rows, columns = np.nonzero(scene.mask(6) == 1)
    np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], [80 + 6.0, 60 - 3.0], atol=0.1)


def test_a_spinning_growing_disc_follows_the_textbook_field() -> None:
    motion = Motion(spin=0.05, log_scale=Swing(0.2, 8.0, 0.0))
    scene = scene_of(disc(1, 4.0, 0.3, motion))
    flow, mask = scene.flow(4, 5), scene.mask(4)
    ratio = np.exp(0.2 * np.sin(np.pi / 4))  # scale at the middle is 1
    x, y = np.meshgrid(np.arange(160) + 0.5 - 80, np.arange(120) + 0.5 - 60)
    want_x = ratio * (np.cos(0.05) * x - np.sin(0.05) * y) - x
    want_y = ratio * (np.sin(0.05) * x + np.cos(0.05) * y) - y
    np.testing.assert_allclose(flow[0][mask == 1], want_x[mask == 1], atol=1e-4)
    np.testing.assert_allclose(flow[1][mask == 1], want_y[mask == 1], atol=1e-4)


def test_parallax_shifts_layers_by_the_inverse_of_their_depth() -> None:
    near = Surface(0, "rocks", 5.0, 1.0, Outline("rocks", (0.0, 0.0, 0.2)), grey_paint())
    scene = scene_of(near, camera=Camera(Course(drift=(0.1, 0.05)), 0.0, Swing(), 0.0))
    grid = scene.picture_grid()
    flow, owner = scene.exact_flows(4, (5,), grid)[0], scene.owners(4, grid)
    np.testing.assert_allclose(flow[:, owner == 0].mean(axis=1), [1.2, 0.6], atol=1e-9)
    np.testing.assert_allclose(flow[:, owner == 1].mean(axis=1), [2.4, 1.2], atol=1e-9)


@pytest.mark.parametrize("index", range(4))
def test_flow_agrees_with_tracking_surface_points(index: int) -> None:
    scene = Scene.create(11, index, size=SMALL, frames=12)
    grid = scene.picture_grid()
    owner = scene.owners(5, grid)
    rng = np.random.default_rng(index)
    flows = scene.exact_flows(5, (3, 4, 6, 7), grid)
    for i in range(len(scene.surfaces)):
        rows, columns = np.nonzero(owner == i)
        for pick in rng.integers(0, len(rows), size=20 if len(rows) else 0):
            r, c = rows[pick], columns[pick]
            start = complex(c + 0.5, r + 0.5)
            for k, t2 in enumerate((3, 4, 6, 7)):
                moved = track(scene, scene.surfaces[i], start, 5, t2) - start
                assert abs(moved - complex(*flows[k, :, r, c])) < 1e-9


@pytest.mark.parametrize("index", range(4))
def test_there_and_back_again_is_nowhere(index: int) -> None:
    scene = Scene.create(12, index, size=SMALL, frames=12)
    grid = scene.picture_grid()
    forward, owner = scene.exact_flows(5, (7,), grid)[0], scene.owners(5, grid)
    rng, met = np.random.default_rng(index), 0
    for r, c in zip(rng.integers(0, 120, 400), rng.integers(0, 160, 400), strict=True):
        x, y = c + 0.5 + forward[0, r, c], r + 0.5 + forward[1, r, c]
        there = Grid(x - 0.5, y - 0.5, 1.0, 1.0, 1, 1)
        if scene.owners(7, there)[0, 0] != owner[r, c]:
            continue
        back = scene.exact_flows(7, (5,), there)[0, :, 0, 0]
        assert np.abs(back + forward[:, r, c]).max() < 1e-6
        met += 1
    assert met > 300


@pytest.mark.parametrize("size", [(240, 320), (250, 333), (333, 250), (256, 256), (200, 350)])
def test_flow_on_the_square_agrees_with_resizing_the_flow_of_the_video(size: tuple[int, int]) -> None:
    height, width = size
    scene = Scene.create(14, 1, size=size, frames=12)
    short = min(size)
    resized = (
        448 if width == short else int(448 * width / short),
        448 if height == short else int(448 * height / short),
    )
    left, top = round((resized[0] - 448) / 2), round((resized[1] - 448) / 2)

    def to_square(field: np.ndarray) -> np.ndarray:
        large = Image.fromarray(field.astype(np.float32)).resize(resized, Image.Resampling.BILINEAR)
        return np.asarray(large.crop((left, top, left + 448, top + 448)).resize((224, 224), Image.Resampling.BILINEAR))

    video_flow = scene.flow(5, 3)
    brute = np.stack([to_square(video_flow[c]) * resized[c] / (width, height)[c] / 2 for c in range(2)])
    exact = scene.flow_on_square(5, 3)
    owner = scene.owners(5, scene.picture_grid())
    edge = cv2.morphologyEx(owner.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    clear = to_square(edge.astype(np.float32)) == 0
    clear[:2], clear[-2:], clear[:, :2], clear[:, -2:] = False, False, False, False
    assert exact.shape == (2, 224, 224) and exact.dtype == np.float32
    assert clear.mean() > 0.5
    assert np.abs(exact - brute)[:, clear].max() < 0.02
    assert np.abs(exact - brute).mean() < 0.05


def test_flow_of_a_crop_is_in_pixels_of_the_grid() -> None:
    scene = Scene.create(15, 0, size=SMALL, frames=12)
    whole = scene.flow(5, 6)
    np.testing.assert_allclose(scene.flow(5, 6, crop=(20.0, 10.0, 80.0, 60.0)), whole[:, 10:70, 20:100], atol=1e-5)
    double = scene.flow(5, 6, size=(240, 320))
    scene_at_odd = scene.flow(5, 6, crop=(0.25, 0.25, 160.0, 120.0))  # the same positions as every second cell
    np.testing.assert_allclose(double[:, 1::2, 1::2] / 2, scene_at_odd, atol=1e-5)


@pytest.mark.parametrize("index", range(6))
def test_the_nearer_object_wins(index: int) -> None:
    scene = Scene.create(17, index, size=SMALL, frames=12)
    mask, depth = scene.mask(6), scene.depth(6)
    nearest = np.full(SMALL, np.inf)
    label = np.zeros(SMALL, int)
    for surface in scene.surfaces:
        alone = replace(scene, contents=replace(scene.contents, surfaces=(scene.surfaces[0], surface)))
        here = alone.owners(6, alone.picture_grid()) == 1
        own_depth = surface.depth / surface.motion.scale_at(6 - 5.5)
        closer = here & (own_depth < nearest)
        nearest[closer], label[closer] = own_depth, surface.label
    np.testing.assert_array_equal(mask, label)
    np.testing.assert_allclose(depth, nearest, rtol=1e-6)


def test_depth_order_never_changes() -> None:
    for index in range(40):
        scene = Scene.create(18, index, size=SMALL, frames=24)
        for t in range(0, 24):
            depths = [s.depth / s.motion.scale_at(t - 11.5) for s in scene.surfaces]
            assert all(a > b for a, b in pairwise(depths))


def test_labels_classes_and_visibility() -> None:
    kinds: set[str] = set()
    counts = set()
    well_seen = 0
    for index in range(40):
        scene = Scene.create(19, index, size=SMALL, frames=20)
        objects = [s for s in scene.surfaces if s.is_object]
        assert sorted(s.label for s in objects) == list(range(1, len(objects) + 1))
        assert 2 <= len(objects) <= 4 and len({s.kind for s in objects}) == len(objects)
        assert sum(not s.is_object for s in scene.surfaces) >= 2
        assert all(0.15 <= 2 * s.size <= 0.45 for s in objects)
        for t in (0, 10, 19):
            mask = scene.mask(t)
            assert set(np.unique(mask)) <= set(range(len(objects) + 1))
            areas = [(mask == s.label).sum() for s in objects]
            well_seen += min(areas) > 40
        assert set(range(1, len(objects) + 1)) <= set(np.unique(scene.mask(0)))
        kinds |= {s.kind for s in objects}
        counts.add(len(objects))
    assert kinds == {c.name for c in CLASSES} and counts == {2, 3, 4}
    assert well_seen >= 0.97 * 120


def test_motion_is_worth_learning_from() -> None:
    """On the 224 square: every pair's flow varies well above the noise floor of 0.02 px and stays within reach of estimators."""
    typical = []
    for index in range(40):
        scene = Scene.create(20, index, size=SMALL, frames=20)
        for t2, limit_px in ((11, 7.0), (12, 14.0)):
            flow = scene.flow_on_square(10, t2)
            magnitude = np.hypot(*flow)
            assert flow.std(axis=(1, 2)).max() > 0.1 and flow.std(axis=(1, 2)).min() > 0.02
            assert np.percentile(magnitude, 99.5) < limit_px
            typical.append(magnitude.mean())
    assert 0.5 < np.mean(typical) < 4.0


def test_record_rebuilds_the_scene() -> None:
    scene = Scene.create(24, 2, size=SMALL, frames=7, style=Style(objects=(3, 3), camouflage=1.0))
    record = json.loads(json.dumps(scene.record()))
    assert Scene.from_record(record) == scene
    with pytest.raises(ValueError, match=r"version 99.*generate it again"):
        Scene.from_record({**record, "version": 99})
    with pytest.raises(ValueError, match=r"incomplete or damaged.*width"):
        Scene.from_record({k: v for k, v in record.items() if k != "width"})
    with pytest.raises(ValueError, match="incomplete or damaged"):
        Scene.from_record({**record, "style": {"colour": 1}})


def test_style_is_obeyed_and_checked() -> None:
    still = Scene.create(25, 0, size=SMALL, frames=6, style=Style(objects=(1, 1), speed=0.0))
    assert still.object_count == 1 and np.abs(still.flow(0, 5)).max() < 1e-5
    for bad in ({"objects": (0, 2)}, {"objects": (2, 9)}, {"radius": (0.3, 0.2)}, {"camouflage": 1.5}):
        with pytest.raises(ValueError, match="style"):
            Style(**bad)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="size 8x8"):
        Scene.create(0, 0, size=(8, 8))
    with pytest.raises(ValueError, match="frames is 0"):
        Scene.create(0, 0, frames=0)
    with pytest.raises(ValueError, match="seed -1"):
        Scene.create(-1, 0)
    scene = Scene.create(0, 0, size=SMALL, frames=5)
    for ask in (lambda: Renderer(scene).frame(5), lambda: scene.mask(-1), lambda: scene.flow(0, 7)):
        with pytest.raises(ValueError, match=r"outside the scene's 0\.\.4"):
            ask()

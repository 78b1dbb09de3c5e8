"""Rendered images against the geometry that they are images of."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from pipeline.synth import Renderer, Scene
from pipeline.synth.compose import Contents, Surface
from pipeline.synth.motion import Course, Motion
from pipeline.synth.shapes import Outline
from pipeline.synth.textures import Paint
from tests.pipeline.synth.plain_scenes import SMALL, STILL, disc, scene_of


def test_warping_the_later_frame_by_flow_gives_the_earlier_one() -> None:
    """Photometric: the images move as the flow says. Compared where both frames show the same surface."""
    for index in range(3):
        scene = Scene.create(13, index, size=(240, 320), frames=12)
        flow, renderer = scene.flow(5, 7), Renderer(scene)
        x, y = np.meshgrid(np.arange(320, dtype=np.float32), np.arange(240, dtype=np.float32))
        target_x, target_y = x + flow[0], y + flow[1]
        warped = cv2.remap(renderer.frame(7), target_x, target_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        owner, later = (scene.owners(t, scene.picture_grid()).astype(np.float32) for t in (5, 7))
        seen = cv2.remap(later, target_x, target_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=-1)
        inner = cv2.erode((seen == owner).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        inner &= cv2.morphologyEx(owner, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) == 0
        inner &= (target_x > 3) & (target_x < 316) & (target_y > 3) & (target_y < 236)
        now = renderer.frame(5).astype(float)
        error = np.abs(warped.astype(float) - now)[inner].mean()
        unmoved = np.abs(renderer.frame(7).astype(float) - now)[inner].mean()
        assert inner.mean() > 0.5
        assert error < 1.5 and error < 0.2 * unmoved


def test_masks_show_where_the_picture_has_the_objects() -> None:
    for index in range(3):
        scene = Scene.create(16, index, size=(240, 320), frames=12)
        ground = tuple(s for s in scene.surfaces if not s.is_object)
        empty = replace(scene, contents=replace(scene.contents, surfaces=ground))
        changed = np.abs(Renderer(scene).frame(6).astype(int) - Renderer(empty).frame(6)).max(axis=2) > 0
        mask = (scene.mask(6) > 0).astype(np.uint8)
        kernel = np.ones((3, 3), np.uint8)
        assert not changed[cv2.dilate(mask, kernel, iterations=2) == 0].any()
        assert changed[cv2.erode(mask, kernel) == 1].mean() > 0.97


def test_edges_are_soft() -> None:
    """White on black: pixels on the outline take the share that the object covers, so the total is the exact area."""
    white = Paint("clouds", ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)), 0.1, 0.0, 1)
    coin = replace(disc(1, 4.0, 0.25, Motion(Course(start=(0.013, 0.007)))), paint=white)
    far = Surface(0, "far", 10.0, 1.0, Outline("plane"), replace(white, colours=((0.0,) * 3, (0.0,) * 3)))
    scene = replace(scene_of(), contents=Contents((far, coin), STILL))
    frame, mask = Renderer(scene).frame(4).astype(float), scene.mask(4)
    rim = (cv2.dilate(mask, np.ones((3, 3), np.uint8)) - cv2.erode(mask, np.ones((3, 3), np.uint8))) > 0
    outside = cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0
    assert frame[outside].max() == 0
    assert len(np.unique(frame[rim])) > 40
    inside_tone = frame[(cv2.erode(mask, np.ones((9, 9), np.uint8)) > 0)].mean()
    assert 0.3 * inside_tone < frame[rim].mean() < 0.7 * inside_tone


def test_a_scene_is_a_function_of_seed_and_index() -> None:
    first, again = (Scene.create(21, 3, size=SMALL, frames=6) for _ in range(2))
    assert first.contents == again.contents
    np.testing.assert_array_equal(Renderer(first).frame(4), Renderer(again).frame(4))
    for other in (Scene.create(21, 4, size=SMALL, frames=6), Scene.create(22, 3, size=SMALL, frames=6)):
        assert other.contents != first.contents
        assert np.abs(Renderer(other).frame(4).astype(int) - Renderer(first).frame(4)).mean() > 10


def test_frames_do_not_depend_on_the_order_of_asking() -> None:
    one, other = (Renderer(Scene.create(23, 0, size=SMALL, frames=6)) for _ in range(2))
    later = one.frame(5)
    one.frame(0)
    np.testing.assert_array_equal(one.frame(5), later)
    np.testing.assert_array_equal(other.frame(5), later)

"""Pictures of a training run: the normalisation undone, tables that line up."""

from __future__ import annotations

import numpy as np
import torch

from common.flow_colors import flow_to_color, wheel_picture
from trainer.flowfeat import FlowFeat
from trainer.pictures import HEADING_PX, LEGEND_PX, photo, table, training_table


def test_photo_undoes_the_normalisation() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    assert (photo(FlowFeat.normalise(torch.from_numpy(pixels)[None])[0]) == pixels).all()


def test_tables_line_up() -> None:
    black = np.zeros((4, 5, 3), np.uint8)
    sheet = table([[black, black], [black, black]])
    assert sheet.shape == (10, 12, 3) and (sheet[:, 5:7] == 255).all() and (sheet[4:6] == 255).all()


def test_a_training_picture_has_headings_and_the_wheel_and_enlarges_small_views() -> None:
    images, flow = torch.zeros(6, 3, 8, 8), torch.randn(6, 2, 8, 8)
    rows = training_table(images, images, flow, torch.ones(6, 2, 8, 8), torch.randn(6, 16, 8, 8))
    side = 8 * 14  # the first multiple of 8 from CELL_PX on
    assert rows.shape == (HEADING_PX + 4 * (side + 2) + LEGEND_PX, 5 * (side + 2) - 2, 3)
    for column in range(5):
        heading = rows[:HEADING_PX, column * (side + 2) : (column + 1) * (side + 2) - 2]
        assert (heading < 128).any() and (heading[:, -4:] == 255).all(), "a text that ends above its column"
    assert np.array_equal(rows[-LEGEND_PX:, :LEGEND_PX], wheel_picture(LEGEND_PX))
    assert (rows[-LEGEND_PX:, LEGEND_PX:] < 128).any(axis=2).sum() > 200, "its explanation"
    drawn = rows[HEADING_PX : HEADING_PX + side, 2 * (side + 2) : 3 * (side + 2) - 2]
    target = flow[0].numpy()
    largest = float(np.quantile(np.hypot(*target), 0.99))
    assert np.array_equal(drawn[::14, ::14], flow_to_color(target, largest))
    large, flows = torch.zeros(1, 3, 224, 224), torch.zeros(1, 4, 224, 224)
    wide = training_table(large, large, flows, flows, torch.randn(1, 16, 224, 224))
    assert wide.shape == (HEADING_PX + 226 + LEGEND_PX, 5 * 226 - 2, 3), "of several neighbours the first"


def test_the_wheel_shows_the_colour_of_the_motion_to_each_place() -> None:
    wheel = wheel_picture(33)
    assert wheel[16, 16].min() >= 250 and (wheel[0, 0] == 255).all()
    right = flow_to_color(np.array([[[1.0]], [[0.0]]]), 1.0)[0, 0].astype(int)
    assert np.abs(wheel[16, 32].astype(int) - right).max() < 12
    assert np.abs(wheel[32, 16].astype(int) - flow_to_color(np.array([[[0.0]], [[1.0]]]), 1.0)[0, 0]).max() < 12

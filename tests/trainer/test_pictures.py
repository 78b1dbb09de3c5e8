"""Pictures show what they claim: direction as hue, length as saturation, structure of features as colour."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import torch

from trainer.flowfeat import FlowFeat
from trainer.pictures import flow_picture, pca_picture, photo, table, training_table


def test_flow_hue_is_direction_and_saturation_is_length() -> None:
    for degrees in range(0, 360, 15):
        for length in (0.0, 0.25, 1.0, 3.0):
            angle = math.radians(degrees)
            flow = np.array([math.cos(angle), math.sin(angle)]).reshape(2, 1, 1) * length * 4.0
            wanted = np.array(colorsys.hsv_to_rgb(degrees / 360, min(length, 1.0), 1.0)) * 255
            np.testing.assert_allclose(flow_picture(flow, 4.0)[0, 0], wanted, atol=1)


def test_pca_separates_what_features_separate_and_is_repeatable() -> None:
    draw = torch.Generator().manual_seed(0)
    features = 0.05 * torch.randn(16, 20, 30, generator=draw)
    features[:, :, :15] += torch.randn(16, 1, 1, generator=draw)
    picture = pca_picture(features)
    assert picture.shape == (20, 30, 3) and picture.dtype == np.uint8
    left, right = picture[:, :15, 0].astype(int), picture[:, 15:, 0].astype(int)
    assert abs(left.mean() - right.mean()) > 150 and left.std() < 30 and right.std() < 30
    assert (pca_picture(features.clone()) == picture).all()
    assert pca_picture(torch.ones(4, 5, 6)).shape == (5, 6, 3)  # nothing to see is no error


def test_photo_undoes_the_normalisation() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    assert (photo(FlowFeat.normalise(torch.from_numpy(pixels)[None])[0]) == pixels).all()


def test_tables_line_up() -> None:
    black = np.zeros((4, 5, 3), np.uint8)
    sheet = table([[black, black], [black, black]])
    assert sheet.shape == (10, 12, 3) and (sheet[:, 5:7] == 255).all() and (sheet[4:6] == 255).all()
    images = torch.zeros(6, 3, 8, 8)
    rows = training_table(images, images, torch.zeros(6, 2, 8, 8), torch.ones(6, 2, 8, 8), torch.randn(6, 16, 8, 8))
    assert rows.shape == (4 * 10 - 2, 5 * 10 - 2, 3)

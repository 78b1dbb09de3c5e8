"""Features as colours: the directions are the principal ones and repeat."""

from __future__ import annotations

import numpy as np
import torch

from common.feature_colors import ColorBasis, pca_picture


def _map() -> torch.Tensor:
    """[6, 40, 50]: three independent signals of falling variance, mixed into six channels."""
    rng = torch.Generator().manual_seed(0)
    signals = torch.randn(3, 2000, generator=rng) * torch.tensor([9.0, 3.0, 1.0])[:, None]
    mixing = torch.linalg.qr(torch.randn(6, 6, generator=rng))[0][:, :3]
    return (mixing @ signals + 5.0).reshape(6, 40, 50)


def test_directions_are_the_principal_ones() -> None:
    map_chw = _map()
    basis = ColorBasis.fit(map_chw)
    flat = map_chw.flatten(1)
    reference = torch.linalg.svd(flat - flat.mean(dim=1, keepdim=True), full_matrices=False)[0][:, :3]
    cosines = (reference * basis.directions_c3).sum(dim=0).abs()
    torch.testing.assert_close(cosines, torch.ones(3), rtol=0, atol=1e-4)


def test_colours_fill_the_range_and_clip_the_outermost() -> None:
    colours = ColorBasis.fit(_map()).colors(_map())
    assert colours.shape == (40, 50, 3)
    for channel in range(3):
        assert 0.005 < (colours[..., channel] == 0).mean() < 0.02
        assert 0.005 < (colours[..., channel] == 255).mean() < 0.02


def test_signs_do_not_depend_on_chance() -> None:
    map_chw = _map()
    once = ColorBasis.fit(map_chw).colors(map_chw)
    np.testing.assert_array_equal(once, ColorBasis.fit(map_chw.clone()).colors(map_chw))
    shuffled = map_chw.flatten(1)[:, torch.randperm(2000, generator=torch.Generator().manual_seed(1))].reshape_as(
        map_chw
    )
    difference = np.abs(once.astype(int) - ColorBasis.fit(shuffled).colors(map_chw).astype(int))
    assert difference.max() <= 1


def test_few_channels_are_drawn() -> None:
    assert ColorBasis.fit(torch.randn(2, 8, 8)).colors(torch.randn(2, 8, 8)).shape == (8, 8, 3)


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

"""Features as colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from probes.report.pictures import ColourBasis, feature_picture
from probes.visualize import draw
from trainer import FlowFeat


def _map() -> torch.Tensor:
    """[6, 40, 50]: three independent signals of falling variance, mixed into six channels."""
    rng = torch.Generator().manual_seed(0)
    signals = torch.randn(3, 2000, generator=rng) * torch.tensor([9.0, 3.0, 1.0])[:, None]
    mixing = torch.linalg.qr(torch.randn(6, 6, generator=rng))[0][:, :3]
    return (mixing @ signals + 5.0).reshape(6, 40, 50)


def test_directions_are_the_principal_ones() -> None:
    map_chw = _map()
    basis = ColourBasis.fit(map_chw)
    flat = map_chw.flatten(1)
    reference = torch.linalg.svd(flat - flat.mean(dim=1, keepdim=True), full_matrices=False)[0][:, :3]
    cosines = (reference * basis.directions_c3).sum(dim=0).abs()
    torch.testing.assert_close(cosines, torch.ones(3), rtol=0, atol=1e-4)


def test_colours_fill_the_range_and_clip_the_outermost() -> None:
    colours = ColourBasis.fit(_map()).colours(_map())
    assert colours.shape == (40, 50, 3)
    for channel in range(3):
        assert 0.005 < (colours[..., channel] == 0).mean() < 0.02
        assert 0.005 < (colours[..., channel] == 255).mean() < 0.02


def test_signs_do_not_depend_on_chance() -> None:
    map_chw = _map()
    once = ColourBasis.fit(map_chw).colours(map_chw)
    np.testing.assert_array_equal(once, ColourBasis.fit(map_chw.clone()).colours(map_chw))
    shuffled = map_chw.flatten(1)[:, torch.randperm(2000, generator=torch.Generator().manual_seed(1))].reshape_as(
        map_chw
    )
    difference = np.abs(once.astype(int) - ColourBasis.fit(shuffled).colours(map_chw).astype(int))
    assert difference.max() <= 1


def test_few_channels_and_constant_maps_are_drawn() -> None:
    assert ColourBasis.fit(torch.randn(2, 8, 8)).colours(torch.randn(2, 8, 8)).shape == (8, 8, 3)
    picture = feature_picture(ColourBasis.fit(torch.ones(4, 8, 8)), torch.ones(4, 8, 8), (16, 16))
    assert picture.size == (16, 16)


def test_visualize_writes_three_panels(tiny: FlowFeat, tmp_path: Path) -> None:
    for name in ("a", "b"):
        pixels = np.random.default_rng(ord(name)).integers(0, 255, (50, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    written = draw(tiny, tmp_path, tmp_path / "out", height_px=48, joint=True)
    assert [path.name for path in written] == ["a_features.png", "b_features.png"]
    with Image.open(written[0]) as picture:
        assert picture.size == (3 * 64 + 2 * 6, 48)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"two pictures in .* are called 'a'"):
        draw(tiny, tmp_path, tmp_path / "out", height_px=48)

"""Features as colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.feature_colors import ColorBasis
from probes.drawing import feature_picture
from probes.visualize import draw
from trainer import FlowFeat


def test_constant_maps_are_drawn() -> None:
    picture = feature_picture(ColorBasis.fit(torch.ones(4, 8, 8)), torch.ones(4, 8, 8), (16, 16))
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

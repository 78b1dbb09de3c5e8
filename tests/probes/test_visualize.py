"""Features of pictures of one's own: panels, names, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from common.progress import ProgressDisplay
from probes.cli import main
from probes.sources.flowfeat import Checkpoint
from probes.visualize import draw, find_pictures


def _write(path: Path) -> None:
    pixels = np.random.default_rng(ord(path.name[0])).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_visualize_writes_three_panels(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write(tmp_path / f"{name}.png")
    with ProgressDisplay("", "pictures") as display:
        files = find_pictures(tmp_path)
        written = draw(tiny_checkpoint, files, tmp_path / "out", height_px=48, joint=True, display=display)
    assert [path.name for path in written] == ["a_features.png", "b_features.png"]
    with Image.open(written[0]) as picture:
        assert picture.size == (3 * 64 + 2 * 6, 48)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"two pictures in .* are called 'a'"):
        find_pictures(tmp_path)


@pytest.mark.parametrize("joint", [[], ["--joint"]])
def test_a_broken_picture_is_named_and_the_others_are_drawn(checkpoint: Path, tmp_path: Path, joint: list[str]) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.png", "c.jpg", "d.png"):
        _write(pictures / name)
    (pictures / "c.jpg").write_bytes((pictures / "c.jpg").read_bytes()[:300])
    (pictures / "a.png").write_bytes(b"no picture")
    (pictures / "b.png").write_bytes((pictures / "d.png").read_bytes())
    given = ["--model", str(checkpoint), "--out", str(tmp_path / "out"), "--height", "48", *joint]
    result = CliRunner().invoke(main, ["visualize", str(pictures), *given])
    assert result.exit_code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b_features.png", "d_features.png"]
    for name in ("a.png", "c.jpg"):
        assert sum(name in line and "skipped" in line for line in result.stderr.splitlines()) == 1
    assert result.stderr.splitlines()[-1] == "Error: 2 of 4 pictures could not be read"
    assert "2 pictures in" in result.stdout

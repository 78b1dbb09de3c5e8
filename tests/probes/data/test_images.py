"""Pictures on the way to an encoder: sizes, suffixes, damage."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from probes.data.images import input_size, list_images, open_rgb


@pytest.mark.parametrize(
    ("height", "frame", "patch", "expected"),
    [
        (480, (480, 854), 16, (480, 832)),
        (480, (480, 854), 14, (476, 840)),
        (480, (480, 910), 16, (480, 896)),
        (480, (480, 910), 8, (480, 896)),
        (480, (1080, 1920), 16, (480, 832)),
        (480, (1080, 1920), 14, (476, 840)),
        (128, (480, 854), 16, (128, 224)),
        (128, (480, 854), 8, (128, 224)),
        (240, (480, 854), 14, (224, 392)),
        (480, (854, 480), 16, (480, 256)),
        (128, (400, 20), 16, (128, 32)),
    ],
)
def test_input_size(height: int, frame: tuple[int, int], patch: int, expected: tuple[int, int]) -> None:
    assert input_size(height, *frame, 2 * patch) == expected


def test_too_small_a_height_is_refused() -> None:
    with pytest.raises(ValueError, match="height 31 is too small: the encoder takes multiples of 32"):
        input_size(31, 480, 854, 32)


def test_pictures_are_listed_sorted_and_opened_as_rgb(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt"):
        Image.new("L", (4, 3), 9).save(tmp_path / name, "PNG")
    assert [path.name for path in list_images(tmp_path)] == ["a.jpg", "b.PNG"]
    assert open_rgb(tmp_path / "b.PNG").mode == "RGB"
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 nothing")
    with pytest.raises(ValueError, match=r"cannot decode the frame .*a\.jpg"):
        open_rgb(tmp_path / "a.jpg", what="frame")

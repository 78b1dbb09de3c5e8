"""Settings that make no sense do not exist: the message names the value and what it may be."""

from __future__ import annotations

from typing import Any

import pytest

from shards.schema import Settings


def settings(**changes: Any) -> Settings:
    return Settings(**{"dataset": "folder", "estimator": {"name": "none"}, **changes})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": ()}, r"distinct non-zero integers .* got \[\]"),
        ({"offsets": (-1, 0, 1)}, r"got \[-1, 0, 1\]"),
        ({"offsets": (1, 1)}, r"got \[1, 1\]"),
        ({"image_size": 15, "flow_size": 15}, r"image_size is 15; give 16\.\.4096"),
        ({"image_size": 4097}, r"image_size is 4097; give 16\.\.4096"),
        ({"flow_size": 15}, r"flow_size is 15; give 16\.\.448"),
        ({"flow_size": 65, "image_size": 64}, r"flow_size is 65; give 16\.\.64 .* image_size is 64"),
        ({"jpeg_quality": 0}, r"jpeg_quality is 0; give 1\.\.100"),
        ({"jpeg_quality": 101}, r"jpeg_quality is 101"),
        ({"chunk_videos": 0}, r"chunk_videos is 0; give 1\.\.10000"),
        ({"chunk_videos": 10_001}, r"chunk_videos is 10001"),
        ({"noise_floor_px": -0.1}, r"noise_floor_px is -0\.1"),
        ({"noise_floor_px": float("nan")}, r"noise_floor_px is nan"),
    ],
)
def test_senseless_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**change)


def test_the_limits_themselves_are_allowed() -> None:
    for change in (
        {"image_size": 16, "flow_size": 16},
        {"image_size": 4096, "flow_size": 4096},
        {"jpeg_quality": 1, "chunk_videos": 1, "noise_floor_px": 0.0},
        {"jpeg_quality": 100, "chunk_videos": 10_000, "offsets": (7,)},
    ):
        made = settings(**change)
        assert Settings.from_json(made.to_json()) == made


def test_offsets_from_json_are_a_tuple() -> None:
    assert settings(offsets=[-1, 1]).offsets == (-1, 1)

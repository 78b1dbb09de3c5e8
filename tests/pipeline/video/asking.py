"""Asking a decoder for windows, as the decoder tests do it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.video.datasets import Video
from pipeline.video.decoder import DecodedAnchor, Decoder
from pipeline.video.rejects import REJECT_REASONS, Reject
from shards.schema import Settings

OFFSETS = (-2, -1, 1, 2)


def file(path: Path) -> Video:
    return Video(path.stem, path, "file")


def settings(**changes: Any) -> Settings:
    return Settings(**{"dataset": "folder", "estimator": {"name": "none"}, "offsets": OFFSETS, **changes})


def ask(
    decoder: Decoder, video: Video, passes: list[int] | None = None, *, deadline_s: float = 300.0, **changes: Any
) -> list[DecodedAnchor]:
    """The anchors of some passes at small sizes. changes: of the settings."""
    wanted = settings(**{"image_size": 96, "flow_size": 48, **changes})
    return list(decoder.windows(video, passes or [0], wanted, deadline_s=deadline_s).anchors)


def reject(decoder: Decoder, video: Video, passes: list[int] | None = None, **options: Any) -> Reject:
    """The Reject that a video must end in."""
    with pytest.raises(Reject) as caught:
        ask(decoder, video, passes, **options)
    assert caught.value.reason in REJECT_REASONS and "\n" not in caught.value.detail
    return caught.value

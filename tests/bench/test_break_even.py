"""When caching has paid for itself: the arithmetic, and one small measurement of the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.break_even import BreakEven, break_even
from pipeline.flow.estimator import choose
from pipeline.video.datasets import list_videos
from tests.pipeline.extract.small_extraction import make_videos
from trainer.config import load_config


def test_the_epoch_at_which_both_have_cost_the_same() -> None:
    """100 videos, 3 passes: extraction 3 * 100 * 0.5 s = 150 s; a cached epoch 20 s, an online one 50 s: equal after 5."""
    result = BreakEven("dis", "CPU", extract_s=0.5, neighbours=4, cached_s=0.2, online_s=0.5)
    epoch = result.epoch(passes=3)
    assert epoch == pytest.approx(5) and 150 + 20 * epoch == pytest.approx(50 * epoch)
    assert result.speed_up == pytest.approx(2.5)
    assert BreakEven("dis", "CPU", 0.5, 4, cached_s=0.5, online_s=0.5).epoch(1) == float("inf")


def test_all_three_rates_are_measured(tmp_path: Path) -> None:
    videos = list_videos("folder", make_videos(tmp_path / "videos", 2))
    tiny = ["encoder.variant=tiny_dino8", "encoder.init=random", "views.image_size=32"]
    config = load_config(None, [*tiny, "train.batch_size=2", "train.device=cpu", "train.threads=1"])
    (result,) = break_even(config, videos, [choose("dis")], steps=3, image_size=64, flow_size=32)
    assert (result.flow, result.clock, result.neighbours) == ("dis", "CPU", 4)
    assert result.extract_s > 0 and result.cached_s > 0 and result.online_s > 0

"""What a GPU computes is what the CPU computes: flow, and a training from shards. `bench/gpu.py` runs these where there is one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.gpu_data import make_shards
from pipeline.flow.estimator import EstimatorOptions, create
from pipeline.flow.precision import moving_texture
from pipeline.synth import write_videos
from trainer import FlowFeat
from trainer.config import Config, load_config
from trainer.train import train

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: the CPU is what it is compared with"
)


def test_flow_is_that_of_the_cpu() -> None:
    windows = [moving_texture(128, seed) for seed in range(3)]
    here, there = (
        create("raft-small", EstimatorOptions("random:0", device)).estimate(windows) for device in ("cuda", "cpu")
    )
    for a, b in zip(here, there, strict=True):
        assert np.abs(a.flow_kchw - b.flow_kchw).max() < 0.05


@pytest.mark.parametrize("tile", [None, 64])
def test_features_are_those_of_the_cpu(tile: int | None) -> None:
    """Of a picture of odd size, at points as well, whole and in tiles."""
    picture, points = torch.rand(3, 101, 139, generator=torch.Generator().manual_seed(0)), [(3.0, 4.0), (100.5, 70.25)]
    here, there = (
        FlowFeat.create("tiny_dino8", init="random", seed=0)
        .eval()
        .to(device)
        .extract(picture, points=points, tile=tile)
        for device in ("cuda", "cpu")
    )
    assert here.high.device.type == "cuda" and here.high.shape[-2:] == (101, 139)
    assert here.at_points is not None and there.at_points is not None
    for a, b in ((here.high, there.high), (here.low, there.low), (here.at_points, there.at_points)):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cuda")
    write_videos(root / "videos", 6, 0, frames=12, size=(96, 128))
    make_shards(root / "videos", root / "shards", passes=2, workers=1, image_size=64, flow_size=32)
    return root / "shards"


def config_for(shards: Path, device: str, *changes: str) -> Config:
    fixed = ["encoder.variant=tiny_dino8", "encoder.init=random", "views.image_size=32", "train.batch_size=4"]
    fixed += [f"data.shards={shards}", "data.workers=1", "train.steps=9", "log.every=1", "log.pictures_every=0"]
    return load_config(None, [*fixed, f"train.device={device}", *changes])


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["event"] == "step"]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("tf32", 1e-2), ("bf16", 5e-2)])
def test_a_training_takes_the_course_that_it_takes_on_the_cpu(
    shards: Path, tmp_path: Path, precision: str, tolerance: float
) -> None:
    """Batches that were copied while others were computed on are the right ones, or the losses would be others."""
    train(config_for(shards, "cpu"), tmp_path / "cpu", console=False)
    train(config_for(shards, "cuda", f"train.precision={precision}"), tmp_path / "cuda", console=False)
    assert len(losses(tmp_path / "cpu")) == 9
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=tolerance)

"""Short runs of a tiny model, and what they leave behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from trainer import train as train_module
from trainer.checkpoint import checkpoints, load
from trainer.config import Config, load_config
from trainer.train import train

TINY = (
    *("encoder.variant=tiny_dino8", "encoder.init=random", "views.image_size=32", "train.threads=1"),
    *("train.batch_size=4", "train.steps=6", "train.lr=1e-3", "data.workers=0"),
    *("log.every=1", "log.pictures_every=0", "log.tensorboard=false"),
)


def config_for(shards: Path, *overrides: str) -> Config:
    return load_config(None, [*TINY, f"data.shards={json.dumps(str(shards))}", *overrides])


def run(shards: Path, out: Path, *overrides: str, resume: bool = False) -> train_module.Outcome:
    return train(config_for(shards, *overrides), out, resume=resume, console=False)


def lines(out: Path, event: str) -> list[dict[str, Any]]:
    parsed = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in parsed if line["event"] == event]


def assert_equal(a: Any, b: Any, where: str = "state") -> None:
    """Bitwise equality of nested states."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def final_state(out: Path) -> dict[str, Any]:
    return load(checkpoints(out)[-1])

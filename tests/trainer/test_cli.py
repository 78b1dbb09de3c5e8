"""python -m trainer: train, export, features; errors in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from tests.trainer.runs import TINY, final_state
from trainer import FlowFeat
from trainer.cli import main


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_cli_trains_exports_and_draws_features(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = invoke("train", "--shards", shards, "--out", out, *TINY, "train.steps=7")
    assert done.exit_code == 0, done.output
    student, teacher = tmp_path / "student.safetensors", tmp_path / "teacher.pth"
    assert invoke("export", "--run", out, "--out", student).exit_code == 0
    assert invoke("export", "--run", out, "--out", teacher, "--ema").exit_code == 0
    state = final_state(out)["model"]
    key = "decoder.scratch.output_conv0.weight"
    assert torch.equal(FlowFeat.from_pretrained(student).state_dict()[key], state[key])
    ema = state["decoder_ema.ema_model.scratch.output_conv0.weight"]
    assert torch.equal(FlowFeat.from_pretrained(teacher).state_dict()[key], ema) and not torch.equal(ema, state[key])

    good, bad = tmp_path / "photo.png", tmp_path / "broken.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)).save(good)
    bad.write_bytes(b"no picture")
    drawn = invoke("features", "--model", student, "--out", tmp_path / "f", "--size", 48, good, bad)
    assert drawn.exit_code == 1 and "broken.jpg" in drawn.output and "1 of 2" in drawn.output
    features = np.load(tmp_path / "f/photo.npy")
    assert features.shape == (16, 48, 64) and features.dtype == np.float16
    assert Image.open(tmp_path / "f/photo.png").size == (64, 48)


def test_cli_resumes_with_the_runs_own_settings(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert invoke("train", "--shards", shards, "--out", out, *TINY, "train.steps=2").exit_code == 0
    more = invoke("train", "--out", out, "--resume", "train.steps=4")
    assert more.exit_code == 0, more.output
    assert final_state(out)["step"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--out", "{tmp}/r", "train.stepz=3"), "train.steps"),
        (("train", "--out", "{tmp}/r"), "--shards"),
        (("train", "--out", "{tmp}/r", "--shards", "{tmp}/none"), "no shard set at"),
        (("train", "--out", "{tmp}/r", "--config", "{tmp}/none.toml"), "none.toml does not exist"),
        (("export", "--run", "{tmp}", "--out", "{tmp}/m.pth"), "holds no checkpoint"),
        (("features", "--model", "{tmp}/m.pth", "--out", "{tmp}", "{tmp}/a.png"), "m.pth"),
        (("features", "--model", "m", "--out", "{tmp}", "{tmp}/a.png", "{tmp}/a.jpg"), "separate runs"),
    ],
)
def test_cli_errors_are_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = invoke(*(a.format(tmp=tmp_path) for a in arguments))
    assert result.exit_code == 1
    assert message in result.output and len(result.output.strip().splitlines()) == 1, result.output

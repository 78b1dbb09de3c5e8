"""The loop: exact resume, and what a run leaves behind."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer.runs import assert_equal, final_state, lines, run
from tests.trainer.training_set import write_training_set
from trainer import FlowFeat
from trainer.checkpoint import checkpoints
from trainer.config import load_config
from trainer.learner import check_sizes


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(shards: Path, tmp_path: Path, workers: int) -> None:
    straight = run(shards, tmp_path / "straight", "train.steps=12")
    half = run(shards, tmp_path / "halves", "train.steps=6", f"data.workers={workers}")
    assert half.step == 6 and straight.step == 12
    whole = run(shards, tmp_path / "halves", "train.steps=12", "data.workers=1", resume=True)
    assert whole.step == 12
    assert_equal(final_state(tmp_path / "halves"), final_state(tmp_path / "straight"))
    assert int(final_state(tmp_path / "straight")["model"]["decoder_ema.step"]) == 12
    losses = [[line["loss"] for line in lines(tmp_path / name, "step")] for name in ("straight", "halves")]
    assert losses[0] == losses[1] and len(losses[0]) == 12
    assert (tmp_path / "halves/flowfeat.pth").read_bytes() == (tmp_path / "straight/flowfeat.pth").read_bytes()


def test_training_learns_and_leaves_everything_behind(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    outcome = run(shards, out, "train.steps=60", "log.checkpoint_every=10", "log.keep_checkpoints=3", "log.every=5",
                  "log.pictures_every=30", "log.tensorboard=true")  # fmt: skip
    steps = lines(out, "step")
    assert [line["step"] for line in steps] == list(range(5, 61, 5))
    assert np.mean([s["loss"] for s in steps[-3:]]) < 0.9 * np.mean([s["loss"] for s in steps[:2]])
    for line in steps:
        assert line["loss"] == pytest.approx(line["loss_grad"] + 0.1 * line["loss_flow"], rel=1e-5)
        assert line["samples_per_s"] > 0 and 0 <= line["data_wait_share"] <= 1 and line["skipped"] == 0
        assert line["lr"] == 1e-3 and line["grad_norm"] > 0
    assert steps[-1]["ema_decay"] == pytest.approx(1 - 55 ** (-2 / 3))
    assert [p.name for p in checkpoints(out)] == [f"step-{s:07d}.pth" for s in (40, 50, 60)]
    assert load_config(out / "config.toml").train.steps == 60
    assert {p.name for p in (out / "pictures").iterdir()} == {"training-0000030.png", "training-0000060.png"}
    assert Image.open(out / "pictures/training-0000060.png").size == (
        5 * 130 - 2,  # views of 32 px, enlarged to 128
        16 + (4 * 130 - 2) + 2 + 48,  # headings, rows, gap, legend
    )
    assert list((out / "tensorboard").glob("events*"))
    assert not [p for p in out.rglob("*.tmp")]

    assert outcome.model_file == out / "flowfeat.safetensors"
    images = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    student = final_state(out)["model"]
    for name in ("flowfeat.safetensors", "flowfeat.pth", "checkpoints/step-0000060.pth"):
        model = FlowFeat.from_pretrained(out / name)
        assert all(torch.equal(value, student[key]) for key, value in model.state_dict().items())
        low, high = model(images)
        assert low.shape == (1, 48, 4, 6) and high.shape == (1, 16, 32, 48)


def test_encoder_never_moves_and_unused_unit_stays(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run", "train.seed=5")
    trained = final_state(tmp_path / "run")["model"]
    fresh = FlowFeat.create("tiny_dino8", init="random", seed=5).state_dict()
    moved = {key for key, value in fresh.items() if not torch.equal(value, trained[key])}
    assert moved and all(key.startswith("decoder.") for key in moved)
    assert not any("refinenet4.resConfUnit1" in key for key in moved)


def test_max_minutes_ends_with_a_model(shards: Path, tmp_path: Path) -> None:
    outcome = run(shards, tmp_path / "run", "train.steps=100000", "train.max_minutes=0.005")
    assert outcome.reason == "max_minutes" and 0 < outcome.step < 100000
    assert outcome.model_file is not None and outcome.model_file.is_file()
    assert final_state(tmp_path / "run")["step"] == outcome.step


def test_default_source_is_twice_the_view(shards: Path) -> None:
    model = FlowFeat.create("tiny_dino8", init="random")
    assert check_sizes(model, load_config(None, ["views.image_size=32"]), 448) == 64
    assert check_sizes(model, load_config(None, ["views.image_size=224"]), 448) == 448
    assert check_sizes(model, load_config(None, ["views.image_size=256"]), 448) == 448
    assert check_sizes(model, load_config(None, ["views.image_size=32", "data.source_size=96"]), 448) == 96


def test_set_that_grew_is_said_on_resume(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run", "train.steps=2")
    grown = write_training_set(tmp_path / "grown", samples=12)
    run(grown, tmp_path / "run", "train.steps=3", resume=True)
    assert lines(tmp_path / "run", "set_changed")


def test_finished_run_resumes_to_nothing(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run", "train.steps=2")
    (tmp_path / "run/flowfeat.pth").unlink()
    assert run(shards, tmp_path / "run", "train.steps=2", resume=True).step == 2
    assert (tmp_path / "run/flowfeat.pth").is_file() and len(lines(tmp_path / "run", "step")) == 2


def test_training_works_outside_the_main_thread(shards: Path, tmp_path: Path) -> None:
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(run(shards, tmp_path / "run", "train.steps=1")))
    thread.start()
    thread.join()
    assert outcomes[0].step == 1

"""The loop: exact resume, what it leaves behind, and how it stops when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from shards.reader import ShardSetError
from tests.trainer.training_set import flip_image_byte, write_training_set
from trainer import FlowFeat
from trainer import train as train_module
from trainer.cli import main
from trainer.config import Config, load_config
from trainer.feed import Views
from trainer.learner import Learner, check_sizes, pick_device
from trainer.loader import LoaderError
from trainer.snapshot import load, snapshots
from trainer.train import NonFiniteLoss, train

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    *("encoder.variant=tiny_dino8", "encoder.init=random", "views.image_size=32", "train.threads=1"),
    *("train.batch_size=4", "train.steps=6", "train.lr=1e-3", "data.workers=0"),
    *("log.every=1", "log.pictures_every=0", "log.tensorboard=false"),
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_set(tmp_path_factory.mktemp("data") / "set")


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
    return load(snapshots(out)[-1])


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
    outcome = run(shards, out, "train.steps=60", "log.snapshot_every=10", "log.keep_snapshots=3", "log.every=5",
                  "log.pictures_every=30", "log.tensorboard=true")  # fmt: skip
    steps = lines(out, "step")
    assert [line["step"] for line in steps] == list(range(5, 61, 5))
    assert np.mean([s["loss"] for s in steps[-3:]]) < 0.9 * np.mean([s["loss"] for s in steps[:2]])
    for line in steps:
        assert line["loss"] == pytest.approx(line["loss_grad"] + 0.1 * line["loss_flow"], rel=1e-5)
        assert line["samples_per_s"] > 0 and 0 <= line["data_wait_share"] <= 1 and line["skipped"] == 0
        assert line["lr"] == 1e-3 and line["grad_norm"] > 0
    assert steps[-1]["ema_decay"] == pytest.approx(1 - 55 ** (-2 / 3))
    assert [p.name for p in snapshots(out)] == [f"step-{s:07d}.pth" for s in (40, 50, 60)]
    assert load_config(out / "config.toml").train.steps == 60
    assert {p.name for p in (out / "pictures").iterdir()} == {"training-0000030.png", "training-0000060.png"}
    assert Image.open(out / "pictures/training-0000060.png").size == (5 * 34 - 2, 4 * 34 - 2)
    assert list((out / "tensorboard").glob("events*"))
    assert not [p for p in out.rglob("*.tmp")]

    assert outcome.model_file == out / "flowfeat.safetensors"
    images = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    student = final_state(out)["model"]
    for name in ("flowfeat.safetensors", "flowfeat.pth", "snapshots/step-0000060.pth"):
        model = FlowFeat.from_pretrained(out / name)
        assert all(torch.equal(value, student[key]) for key, value in model.state_dict().items())
        low, high = model(images)
        assert low.shape == (1, 48, 4, 6) and high.shape == (1, 16, 32, 48)


def test_bf16_networks_keep_the_method_in_float32(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CUDA-only option, run through the CPU's autocast: close to float32 and trainable."""
    monkeypatch.setattr("trainer.learner.set_precision", lambda config, device: None)
    draw = torch.Generator().manual_seed(0)
    views = Views(*(torch.randn(2, c, 32, 32, generator=draw) for c in (3, 3, 2, 2)))
    updates = {}
    for precision in ("float32", "bf16"):
        config = config_for(shards, f"train.precision={precision}", "train.batch_size=2")
        learner = Learner(config, torch.device("cpu"))
        updates[precision] = learner.learn(views)
        assert all(p.dtype == torch.float32 for p in learner.parameters)
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in learner.parameters)
    assert updates["bf16"].predicted_b2hw.dtype == torch.float32
    assert updates["bf16"].losses["total"] == pytest.approx(updates["float32"].losses["total"], rel=0.02)
    assert updates["bf16"].losses["total"] != updates["float32"].losses["total"]
    assert updates["bf16"].grad_norm == pytest.approx(updates["float32"].grad_norm, rel=0.1)


def test_encoder_never_moves_and_unused_unit_stays(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run", "train.seed=5")
    trained = final_state(tmp_path / "run")["model"]
    fresh = FlowFeat.create("tiny_dino8", init="random", seed=5).state_dict()
    moved = {key for key, value in fresh.items() if not torch.equal(value, trained[key])}
    assert moved and all(key.startswith("decoder.") for key in moved)
    assert not any("refinenet4.resConfUnit1" in key for key in moved)


def test_accumulated_parts_give_the_gradient_of_the_batch(shards: Path, tmp_path: Path) -> None:
    for name, parts in (("one", 1), ("two", 2), ("four", 4)):
        run(shards, tmp_path / name, f"train.accumulate={parts}", "train.steps=1")
    losses = [lines(tmp_path / name, "step")[0] for name in ("one", "two", "four")]
    for key in ("loss", "loss_grad", "loss_flow", "grad_norm"):
        assert losses[1][key] == pytest.approx(losses[0][key], rel=1e-4)
        assert losses[2][key] == pytest.approx(losses[0][key], rel=1e-4)


def test_rerun_without_resume_is_refused(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run", "train.steps=1")
    before = snapshots(tmp_path / "run")[0].read_bytes()
    with pytest.raises(ValueError, match="already holds a run: add --resume"):
        run(shards, tmp_path / "run", "train.steps=1")
    with pytest.raises(ValueError, match=r"holds no run to resume"):
        run(shards, tmp_path / "other", resume=True)
    with pytest.raises(ValueError, match=r"other settings.*train\.lr: 0\.001 -> 0\.1"):
        run(shards, tmp_path / "run", "train.lr=0.1", resume=True)
    assert snapshots(tmp_path / "run")[0].read_bytes() == before


def test_damaged_snapshot_is_named(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run", "train.steps=2", "log.snapshot_every=1")
    newest = snapshots(tmp_path / "run")[-1]
    newest.write_bytes(newest.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"step-0000002\.pth is damaged.*step-0000001\.pth"):
        run(shards, tmp_path / "run", "train.steps=3", resume=True)


def test_non_finite_loss_stops_and_keeps_the_last_snapshot(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    cut = train_module.cut_views
    calls = []

    def poisoned(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        views = cut(*args, **kwargs)
        return views._replace(u1=views.u1 * float("nan")) if len(calls) == 4 else views

    monkeypatch.setattr(train_module, "cut_views", poisoned)
    with pytest.raises(
        NonFiniteLoss, match=r"step 4: flow = nan.*last snapshot is intact\. Samples of the step: 00000"
    ):
        run(shards, out, "log.snapshot_every=2")
    assert [p.name for p in snapshots(out)] == ["step-0000002.pth"]
    assert all(torch.isfinite(v).all() for v in final_state(out)["model"].values() if v.is_floating_point())
    assert lines(out, "error")[0]["kind"] == "NonFiniteLoss" and not (out / "flowfeat.pth").exists()
    monkeypatch.setattr(train_module, "cut_views", cut)
    assert run(shards, out, "log.snapshot_every=2", resume=True).step == 6


def test_unreadable_sample_is_counted_named_and_survived(tmp_path: Path) -> None:
    root = write_training_set(tmp_path / "set")
    key = flip_image_byte(root, 2)
    run(root, tmp_path / "run", "train.steps=10", "data.workers=2")
    skipped = lines(tmp_path / "run", "skipped")
    assert skipped and {line["key"] for line in skipped} == {key}
    assert all("damaged" in line["reason"] and "pass-00/000000.tar" in line["reason"] for line in skipped)
    assert lines(tmp_path / "run", "step")[-1]["skipped"] == len(skipped)


def test_mostly_damaged_set_is_an_error(tmp_path: Path) -> None:
    root = write_training_set(tmp_path / "set")
    for row in range(9):
        flip_image_byte(root, row)
    with pytest.raises(LoaderError, match="could not be read"):
        run(root, tmp_path / "run", "train.steps=100")


def test_max_minutes_ends_with_a_model(shards: Path, tmp_path: Path) -> None:
    outcome = run(shards, tmp_path / "run", "train.steps=100000", "train.max_minutes=0.005")
    assert outcome.reason == "max_minutes" and 0 < outcome.step < 100000
    assert outcome.model_file is not None and outcome.model_file.is_file()
    assert final_state(tmp_path / "run")["step"] == outcome.step


def test_offsets_not_in_the_set_are_named(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.offsets = \[-2, 1\].*stores \[-1, 1, 2\]"):
        run(shards, tmp_path / "run", "data.offsets=[-2,1]")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("views.image_size=40", r"views\.image_size = 40 .*multiple of 16.*such as 32 or 48"),
        ("data.source_size=65", r"data\.source_size = 65 is larger than the frames in the set \(64"),
        ("train.device=tpu9", "train.device = 'tpu9'"),
        ("train.precision=bf16", "needs CUDA"),
        ("encoder.variant=dino_vits17", "dino_vits16"),
    ],
)
def test_settings_that_do_not_fit_are_refused_and_leave_no_run(
    shards: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(shards, tmp_path / "run", override)
    assert not (tmp_path / "run").exists()
    assert run(shards, tmp_path / "run", "train.steps=1").step == 1


def test_default_source_is_twice_the_view(shards: Path) -> None:
    model = FlowFeat.create("tiny_dino8", init="random")
    assert check_sizes(model, load_config(None, ["views.image_size=32"]), 448) == 64
    assert check_sizes(model, load_config(None, ["views.image_size=224"]), 448) == 448
    assert check_sizes(model, load_config(None, ["views.image_size=256"]), 448) == 448
    assert check_sizes(model, load_config(None, ["views.image_size=32", "data.source_size=96"]), 448) == 96


def test_broken_sets_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ShardSetError, match="no shard set at"):
        run(tmp_path / "nowhere", tmp_path / "run")
    partial = write_training_set(tmp_path / "partial", samples=12, complete=False)
    with pytest.raises(ShardSetError, match="being written"):
        run(partial, tmp_path / "run")
    assert run(partial, tmp_path / "partial-run", "data.allow_partial=true", "train.steps=1").step == 1
    truncated = write_training_set(tmp_path / "truncated")
    shard = next(truncated.glob("pass-00/*.tar"))
    shard.write_bytes(shard.read_bytes()[:-2000])
    with pytest.raises(ShardSetError, match="truncated"):
        run(truncated, tmp_path / "run")


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


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A training process of its own group, which does not outlive the block whatever happens in it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_step(out: Path, step: int, deadline_s: float = 300) -> None:
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if (out / "log.jsonl").exists() and len(lines(out, "step")) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"no step {step} within {deadline_s} s")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_saves_and_resume_continues_exactly(shards: Path, tmp_path: Path, number: int) -> None:
    out = tmp_path / "run"
    arguments = ("train", "--shards", str(shards), "--out", str(out), *TINY, "data.workers=2", "train.steps=1000000")
    with started(*arguments) as process:
        wait_for_step(out, 3)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 130 and "Traceback" not in errors and "--resume" in errors
    reached = final_state(out)["step"]
    assert lines(out, "stop")[0]["reason"] == "interrupted" and reached >= 3
    run(shards, out, f"train.steps={reached + 2}", resume=True)
    run(shards, tmp_path / "straight", f"train.steps={reached + 2}")
    assert_equal(final_state(out), final_state(tmp_path / "straight"))


def test_kill_without_warning_loses_at_most_the_steps_since_the_snapshot(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ("train", "--shards", str(shards), "--out", str(out), *TINY, "train.steps=1000000")
    with started(*arguments, "log.snapshot_every=2"):
        wait_for_step(out, 7)
    step = final_state(out)["step"]
    assert step >= 6 and step % 2 == 0
    run(shards, out, f"train.steps={step + 1}", resume=True)
    run(shards, tmp_path / "straight", f"train.steps={step + 1}")
    assert_equal(final_state(out), final_state(tmp_path / "straight"))


def test_training_works_outside_the_main_thread(shards: Path, tmp_path: Path) -> None:
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(run(shards, tmp_path / "run", "train.steps=1")))
    thread.start()
    thread.join()
    assert outcomes[0].step == 1


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
        (("export", "--run", "{tmp}", "--out", "{tmp}/m.pth"), "holds no snapshot"),
        (("features", "--model", "{tmp}/m.pth", "--out", "{tmp}", "{tmp}/a.png"), "m.pth"),
        (("features", "--model", "m", "--out", "{tmp}", "{tmp}/a.png", "{tmp}/a.jpg"), "separate runs"),
    ],
)
def test_cli_errors_are_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = invoke(*(a.format(tmp=tmp_path) for a in arguments))
    assert result.exit_code == 1
    assert message in result.output and len(result.output.strip().splitlines()) == 1, result.output


def test_cpu_device_names() -> None:
    assert pick_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        with pytest.raises(ValueError, match="0 CUDA devices"):
            pick_device("cuda")


def test_learner_state_survives_a_round_trip(shards: Path) -> None:
    config = config_for(shards)
    learner = Learner(config, torch.device("cpu"))
    other = Learner(load_config(None, [*TINY, "train.seed=9"]), torch.device("cpu"), learner.state_dict())
    assert_equal(other.state_dict(), learner.state_dict())

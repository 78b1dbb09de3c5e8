"""How a run refuses what does not fit and stops when something is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from common.command import PlainError
from common.device import pick_device
from common.lock import directory_lock
from shards.reader import ShardSetError
from tests.trainer.runs import final_state, lines, run
from tests.trainer.training_set import flip_image_byte, write_training_set
from trainer import checkpoint
from trainer import train as train_module
from trainer.checkpoint import checkpoints
from trainer.loader import LoaderError
from trainer.tally import NonFiniteLoss


def test_rerun_without_resume_is_refused(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run", "train.steps=1")
    before = checkpoints(tmp_path / "run")[0].read_bytes()
    with pytest.raises(ValueError, match="already holds a run: add --resume"):
        run(shards, tmp_path / "run", "train.steps=1")
    with pytest.raises(ValueError, match=r"holds no run to resume"):
        run(shards, tmp_path / "other", resume=True)
    with pytest.raises(ValueError, match=r"other settings.*train\.lr: 0\.001 -> 0\.1"):
        run(shards, tmp_path / "run", "train.lr=0.1", resume=True)
    assert checkpoints(tmp_path / "run")[0].read_bytes() == before


def test_damaged_checkpoint_is_named(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run", "train.steps=2", "log.checkpoint_every=1")
    newest = checkpoints(tmp_path / "run")[-1]
    newest.write_bytes(newest.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"step-0000002\.pth is damaged.*step-0000001\.pth: delete .*--resume"):
        run(shards, tmp_path / "run", "train.steps=3", resume=True)
    newest.unlink()  # as the message says
    assert run(shards, tmp_path / "run", "train.steps=3", resume=True).step == 3
    assert lines(tmp_path / "run", "start")[-1]["step"] == 1


def test_the_only_checkpoint_damaged_says_how_to_begin_anew(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(shards, out, "train.steps=1")
    only = checkpoints(out)[0]
    only.write_bytes(only.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"no other lies in .*: start again with another --out$"):
        run(shards, out, "train.steps=2", resume=True)


def test_non_finite_loss_stops_and_keeps_the_last_checkpoint(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    cut = train_module.cut_views
    calls = []

    def poisoned(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        views = cut(*args, **kwargs)
        assert views.u1 is not None
        return views._replace(u1=views.u1 * float("nan")) if len(calls) == 4 else views

    monkeypatch.setattr(train_module, "cut_views", poisoned)
    with pytest.raises(
        NonFiniteLoss, match=r"step 4: flow = nan.*last checkpoint is intact\. Samples of the step: 00000"
    ):
        run(shards, out, "log.checkpoint_every=2")
    assert [p.name for p in checkpoints(out)] == ["step-0000002.pth"]
    assert all(torch.isfinite(v).all() for v in final_state(out)["model"].values() if v.is_floating_point())
    assert lines(out, "error")[0]["kind"] == "NonFiniteLoss" and not (out / "flowfeat.pth").exists()
    monkeypatch.setattr(train_module, "cut_views", cut)
    assert run(shards, out, "log.checkpoint_every=2", resume=True).step == 6


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


def test_offsets_not_in_the_set_are_named(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.offsets = \[-2, 1\].*stores \[-1, 1, 2\]"):
        run(shards, tmp_path / "run", "data.offsets=[-2,1]")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("views.image_size=40", r"views\.image_size = 40 .*multiple of 16.*such as 32 or 48"),
        ("data.source_size=65", r"data\.source_size = 65 is larger than the frames in the set \(64"),
        ("train.device=tpu9", "train.device = 'tpu9'"),
        ("train.precision=bf16", "train.precision = 'bf16' needs CUDA or a processor with bf16 instructions"),
        ("train.precision=tf32", "train.precision = 'tf32' needs CUDA; on this cpu use fp32"),
        ("encoder.variant=dino_vits17", "dino_vits16"),
    ],
)
def test_settings_that_do_not_fit_are_refused_and_leave_no_run(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    monkeypatch.setattr("trainer.device.has_bf16", lambda: False)
    with pytest.raises(ValueError, match=message):
        run(shards, tmp_path / "run", override)
    assert not (tmp_path / "run").exists()
    assert run(shards, tmp_path / "run", "train.steps=1").step == 1


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


def test_cpu_device_names() -> None:
    assert pick_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        with pytest.raises(ValueError, match="0 CUDA devices"):
            pick_device("cuda")


def test_two_trainers_in_one_directory_do_not_lose_a_run(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with directory_lock(out, "a training"), pytest.raises(PlainError, match="a training is already at work"):
        run(shards, out, "train.steps=1")
    assert not (out / "config.toml").exists()
    assert run(shards, out, "train.steps=1").step == 1, "the lock leaves nothing that a run would stumble over"


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_another_has_moved_on_is_not_continued_from_where_it_was(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    """Both looked at the directory before either held it; whoever comes second must not overwrite the first one's work."""
    out = tmp_path / "run"
    if resume:
        run(shards, out, "train.steps=1")
    looked = checkpoint.find

    def overtaken(*arguments: Any) -> Any:
        state = looked(*arguments)
        monkeypatch.setattr(checkpoint, "find", looked)
        run(shards, out, "train.steps=3", resume=resume)
        return state

    monkeypatch.setattr(checkpoint, "find", overtaken)
    with pytest.raises(PlainError, match="another training has been at work"):
        run(shards, out, "train.steps=2", resume=resume)
    assert [path.name for path in checkpoint.checkpoints(out)][-1] == "step-0000003.pth"

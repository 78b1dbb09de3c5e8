"""A step's numbers stay on the device: who waits for them and when, and that nothing bad is saved unread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from shards.reader import ShardSet
from tests.trainer.runs import assert_equal, config_for, final_state, lines, run
from trainer import learner as learner_module
from trainer import train as train_module
from trainer.checkpoint import checkpoints
from trainer.learner import ALONE
from trainer.order import batch_positions
from trainer.tally import MOST_UNREAD, NonFiniteLoss, Tally
from trainer.training_samples import sample_order
from trainer.update import Update


class Waits(TorchDispatchMode):
    """Records what would make the host wait for a device: a scalar or a list asked of a tensor, a copy to the CPU or to numpy."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.steps = 0
        self.found: list[tuple[str, int]] = []
        for name in ("tolist", "cpu", "numpy"):
            plain = getattr(torch.Tensor, name)

            def counted(tensor: Any, *args: Any, name: str = name, plain: Any = plain, **kwargs: Any) -> Any:
                self.found.append((name, self.steps))
                return plain(tensor, *args, **kwargs)

            monkeypatch.setattr(torch.Tensor, name, counted)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:  # item, bool, int, float, index
            self.found.append(("item", self.steps))
        return func(*args, **(kwargs or {}))


def test_the_host_waits_at_log_steps_only(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = Waits(monkeypatch)
    learn, save, adamw = learner_module.Learner.learn, train_module._save, torch.optim.AdamW
    # as on CUDA; the CPU's own implementation keeps its count of steps in a tensor and reads it
    monkeypatch.setattr(torch.optim, "AdamW", lambda *args, **kwargs: adamw(*args, **kwargs | {"fused": True}))

    def learning(self: Any, views: Any) -> Any:
        waits.steps += 1
        return learn(self, views)

    seen: list[tuple[str, int]] = []

    def saving(*args: Any) -> Any:
        seen.extend(waits.found)
        return save(*args)

    monkeypatch.setattr(learner_module.Learner, "learn", learning)
    monkeypatch.setattr(train_module, "_save", saving)
    with waits:
        run(shards, tmp_path / "run", "train.steps=6", "log.every=3", "train.accumulate=2", "log.checkpoint_every=100")
    assert {step for _, step in seen if step} == {3, 6}, seen


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: only there is waiting an error to torch"
)
def test_no_step_waits_for_the_gpu(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, int] = {}

    def strict(owner: Any, name: str) -> None:
        plain = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            if calls[name] > 2:  # constants are sent to the device and libraries set up in the first steps
                torch.cuda.set_sync_debug_mode("error")
            try:
                return plain(*args, **kwargs)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        monkeypatch.setattr(owner, name, watched)

    strict(train_module, "cut_views")
    strict(learner_module.Learner, "learn")
    strict(Tally, "add")
    run(shards, tmp_path / "run", "train.device=cuda", "train.steps=8", "log.every=4", "data.workers=1")
    assert calls == {"cut_views": 8, "learn": 8, "add": 8}


@pytest.mark.parametrize(("checkpoint_every", "noticed"), [(100, 6), (5, 5)])
def test_a_number_that_is_none_is_noticed_late_but_blamed_on_the_right_samples(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_every: int, noticed: int
) -> None:
    cut, calls = train_module.cut_views, []

    def poisoned(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        views = cut(*args, **kwargs)
        assert views.u1 is not None
        return views._replace(u1=views.u1 * float("nan")) if len(calls) == 3 else views

    monkeypatch.setattr(train_module, "cut_views", poisoned)
    overrides = ("log.every=100", f"log.checkpoint_every={checkpoint_every}")
    with pytest.raises(NonFiniteLoss) as raised:
        run(shards, tmp_path / "run", *overrides)
    message = str(raised.value)
    assert message.startswith("step 3: flow = nan") and f"(noticed after step {noticed})" in message
    index = ShardSet(shards)
    order = sample_order(index, config_for(shards))
    keys = [index.keys[i] for i in order.visits(batch_positions(2, 4)).sample]
    assert message.endswith("Samples of the step: " + ", ".join(keys)) and len(calls) == noticed
    assert not checkpoints(tmp_path / "run"), "nothing is saved after a step that is not finite"


def test_unread_steps_are_bounded() -> None:
    tally = Tally(["a"], ALONE)
    for step in range(1, MOST_UNREAD + 1):
        assert not tally.full
        tally.add(step, np.zeros(1, np.int64), Update(("total",), torch.tensor([float(step)]), {}))
    assert tally.full and [n["total"] for n in tally.read()] == [float(n) for n in range(1, MOST_UNREAD + 1)]
    assert len(tally) == 0 and tally.read() == []


def test_a_continued_run_logs_the_means_of_the_uninterrupted_one(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between two log lines: the steps before the checkpoint count in the next line all the same."""

    class Impatient(train_module.Interrupts):
        """Asks for an end before the sixth step."""

        def __init__(self) -> None:
            self.looks = 0
            super().__init__()

        @property
        def asked(self) -> bool:
            self.looks += 1
            return self.looks == 6

        @asked.setter
        def asked(self, value: bool) -> None:
            pass

    settings = ("train.steps=8", "log.every=4")
    run(shards, tmp_path / "straight", *settings)
    with monkeypatch.context() as patched:
        patched.setattr(train_module, "Interrupts", Impatient)
        assert run(shards, tmp_path / "halves", *settings).step == 5
    run(shards, tmp_path / "halves", *settings, resume=True)
    keys = ("step", "loss", "loss_flow", "loss_grad", "grad_norm")
    straight, halves = (
        [[line[k] for k in keys] for line in lines(tmp_path / n, "step")] for n in ("straight", "halves")
    )
    assert straight == halves and len(straight) == 2
    assert_equal(final_state(tmp_path / "halves"), final_state(tmp_path / "straight"))

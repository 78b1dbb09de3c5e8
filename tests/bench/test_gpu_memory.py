"""The out-of-memory part where no GPU is: the limit's arithmetic with a pretended card, and what a training step may answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from bench import gpu_memory, record
from bench.gpu_run import read_rows
from common.command import PlainError
from trainer.learner import Learner
from trainer.update import Update
from trainer.views import Views

TINY = ["encoder.variant=tiny_dino8", "encoder.init=random", "views.image_size=32", "train.batch_size=8"]
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_the_limit_counts_what_is_held_already(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asked: list[tuple[float, int]] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 20)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (50, 100))
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: asked.append((share, device))
    )
    with gpu_memory.at_most(30, torch.device(name)):
        assert asked == [(0.5, 0)]
    assert asked == [(0.5, 0), (1.0, 0)]


@contextmanager
def no_limit(more_bytes: int, device: torch.device) -> Iterator[None]:
    yield


def test_a_step_that_should_not_fit_but_does_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path / "rows.csv")
    monkeypatch.setattr(gpu_memory, "at_most", no_limit)
    with pytest.raises(PlainError, match=r"a training step of \d+ MiB ran in 60 % of it"):
        gpu_memory.training_in_parts(TINY, CPU, None)
    whole, parts = read_rows(tmp_path / "rows.csv")
    assert (whole.figure, parts.figure) == ("training_step", "training_step_in_8_parts")
    assert 0 < parts.value < 0.6 * whole.value, "or the parts would not fit either"


def test_only_lack_of_memory_is_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path / "rows.csv")
    learn = Learner.learn
    error: list[Exception] = []

    @contextmanager
    def limit(more_bytes: int, device: torch.device) -> Iterator[None]:
        def lacking(self: Learner, views: Views) -> Update:
            if self.config.train.accumulate == 1:
                raise error[0]
            return learn(self, views)

        with monkeypatch.context() as patch:
            patch.setattr(Learner, "learn", lacking)
            yield

    monkeypatch.setattr(gpu_memory, "at_most", limit)
    error[:] = [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")]
    gpu_memory.training_in_parts(TINY, CPU, None)
    assert len(read_rows(tmp_path / "rows.csv")) == 2
    error[:] = [RuntimeError("an illegal memory access was encountered")]
    with pytest.raises(RuntimeError, match="illegal memory access"):
        gpu_memory.training_in_parts(TINY, CPU, None)

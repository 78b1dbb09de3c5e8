"""The teacher against the recorded trajectory of the reference, and across a save."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from trainer.ema import Teacher, decay_at

RECORDED = np.load(Path(__file__).resolve().parents[1] / "data" / "parity_ema.npz")


def scalar(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(value)
    return layer


def follow(teacher: Teacher, student: nn.Linear, first: int, last: int) -> tuple[list[float], list[float]]:
    values, decays = [], []
    for call in range(first, last):
        with torch.no_grad():
            student.weight.fill_(float(RECORDED["trajectory"][call]))
        decay = teacher.update(student)
        values.append(float(teacher.decoder.weight))  # type: ignore[arg-type]
        decays.append(-1.0 if decay is None else decay)
    return values, decays


def test_teacher_follows_the_reference() -> None:
    student = scalar(0.25)
    teacher = Teacher(student)
    assert float(teacher.decoder.weight) == 0.25  # type: ignore[arg-type]
    values, decays = follow(teacher, student, 0, len(RECORDED["ema"]))
    np.testing.assert_allclose(values, RECORDED["ema"], atol=1e-6)
    np.testing.assert_allclose(decays, RECORDED["decay_per_call"], atol=1e-6)


def test_decay_schedule_at_large_counts() -> None:
    got = [decay_at(int(call)) for call in RECORDED["sched_calls"]]
    np.testing.assert_allclose(got, RECORDED["sched_decay"], atol=1e-6)


def test_saved_teacher_continues_the_same() -> None:
    student = scalar(0.25)
    teacher = Teacher(student)
    follow(teacher, student, 0, 53)
    other = Teacher(scalar(9.0))
    other.load_state_dict(teacher.state_dict())
    assert other.calls == 53 and other.last_decay == teacher.last_decay
    values, _ = follow(other, student, 53, 130)
    np.testing.assert_allclose(values, RECORDED["ema"][53:], atol=1e-6)


def test_teacher_has_no_gradients_and_shares_nothing() -> None:
    student = scalar(1.0)
    teacher = Teacher(student)
    assert not any(p.requires_grad for p in teacher.decoder.parameters())
    with torch.no_grad():
        student.weight.fill_(5.0)
    assert float(teacher.decoder.weight) == 1.0  # type: ignore[arg-type]

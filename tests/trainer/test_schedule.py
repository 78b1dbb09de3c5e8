"""The learning rate's curve, and that a run follows it across an interruption."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainer.runs import assert_equal, config_for, final_state, lines, run
from trainer.checkpoint import checkpoints
from trainer.config_sections import TrainConfig
from trainer.schedule import learning_rate

CONSTANT = TrainConfig(steps=100, lr=0.01)
COSINE = replace(CONSTANT, schedule="cosine", warmup_steps=10)
SETTINGS = ("train.schedule=cosine", "train.warmup_steps=2")


def test_by_default_the_rate_is_exactly_the_set_one() -> None:
    assert {learning_rate(done, CONSTANT) for done in range(200)} == {0.01}


def test_warm_up_is_linear_and_ends_at_the_rate() -> None:
    for settings in (COSINE, replace(CONSTANT, warmup_steps=10)):
        assert [learning_rate(done, settings) for done in range(10)] == pytest.approx([0.001 * n for n in range(1, 11)])
    assert learning_rate(10, replace(CONSTANT, warmup_steps=10)) == 0.01


def test_cosine_falls_from_the_rate_to_nothing_with_half_of_it_half_way() -> None:
    assert learning_rate(10, COSINE) == 0.01
    assert learning_rate(55, COSINE) == pytest.approx(0.005)
    assert learning_rate(32.5, COSINE) == pytest.approx(0.01 * (1 + math.sqrt(0.5)) / 2)  # type: ignore[arg-type]
    rates = [learning_rate(done, COSINE) for done in range(10, 100)]
    assert rates == sorted(rates, reverse=True) and 0 < rates[-1] < 1e-5
    assert learning_rate(100, COSINE) == learning_rate(101, COSINE) == 0


def test_a_run_logs_its_rates_and_resumes_bit_equal(shards: Path, tmp_path: Path) -> None:
    settings = (*SETTINGS, "log.checkpoint_every=3")
    run(shards, tmp_path / "whole", *settings)
    run(shards, tmp_path / "parts", *settings)
    checkpoints(tmp_path / "parts")[-1].unlink()  # as if it had been killed after step 3
    run(shards, tmp_path / "parts", *settings, resume=True)
    expected = [learning_rate(done, config_for(shards, *SETTINGS).train) for done in range(6)]
    assert [line["lr"] for line in lines(tmp_path / "whole", "step")] == pytest.approx(expected)
    assert [line["lr"] for line in lines(tmp_path / "parts", "step")][-3:] == pytest.approx(expected[3:])
    assert_equal(final_state(tmp_path / "parts")["model"], final_state(tmp_path / "whole")["model"])
    constant = run(shards, tmp_path / "constant").model_file
    cosine = tmp_path / "whole" / "flowfeat.safetensors"
    assert constant is not None and constant.read_bytes() != cosine.read_bytes()


def test_more_steps_cannot_be_added_to_a_cosine(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run", *SETTINGS, "train.steps=3")
    with pytest.raises(ValueError, match=r"train\.steps: 3 -> 6"):
        run(shards, tmp_path / "run", *SETTINGS, resume=True)


def test_a_warm_up_longer_than_the_run_is_refused(shards: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.warmup_steps = 6 must be fewer than train\.steps = 6"):
        config_for(shards, "train.warmup_steps=6")

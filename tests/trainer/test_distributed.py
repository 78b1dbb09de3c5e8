"""Several ranks are one training: the same weights, one writer, one end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.ranks import Scenario, write
from tests.trainer.runs import assert_equal, config_for, final_state, lines, run
from trainer import FlowFeat
from trainer.checkpoint import checkpoints, load
from trainer.device import cpu_threads, training_device
from trainer.distributed import OtherRank, Place, Ranks, Stop

ROOT = Path(__file__).resolve().parents[2]
STEPS = 4
# A small step: Adam turns the sign of a gradient of next to nothing into a whole step, and the losses and the decoder have kinks.
SETTINGS = (
    "train.accumulate=2",
    f"train.steps={STEPS}",
    "train.lr=1e-5",
    "log.checkpoint_every=1",
    "log.keep_checkpoints=9",
)
TROUBLES = ("data", "death", "nan", "interrupt")


@pytest.fixture(scope="module")
def ended(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scenario]:
    """All runs on several ranks, made by one process: what each is for is in the tests below."""
    root = tmp_path_factory.mktemp("ranks")
    run(shards, root / "grown", *SETTINGS, "train.steps=2")

    def scenario(name: str, ranks: int, *overrides: str, **more: Any) -> Scenario:
        return Scenario(str(shards), str(root / name), ranks, (*SETTINGS, *overrides), **more)

    scenarios = {
        "straight": scenario("straight", 2, "data.workers=1"),
        "shrunk": scenario("shrunk", 2, "train.steps=2"),
        "grown": scenario("grown", 2, resume=True),
        **{trouble: scenario(trouble, 2, trouble=trouble) for trouble in TROUBLES},
    }
    write(list(scenarios.values()), root / "scenarios.json")
    command = [sys.executable, "-m", "tests.trainer.ranks", str(root / "scenarios.json")]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        assert process.wait(timeout=500) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return scenarios


@pytest.fixture(scope="module")
def alone(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    run(shards, out, *SETTINGS)
    return out


def weights(state: dict[str, Any], prefix: str) -> torch.Tensor:
    return torch.cat([v.double().flatten() for k, v in sorted(state.items()) if k.startswith(prefix)])


def moments(state: dict[str, Any]) -> torch.Tensor:
    return torch.cat([m["exp_avg"].double().flatten() for _, m in sorted(state["optim"]["state"].items())])


def assert_close(found: Path, wanted: Path) -> None:
    """Student and teacher within 1e-5, which is a small part of the way that they have come."""
    one, other = final_state(found), final_state(wanted)
    assert one["step"] == other["step"] == STEPS
    begun = weights(FlowFeat.create("tiny_dino8", init="random", seed=0).state_dict(), "decoder.")
    for prefix in ("decoder.", "decoder_ema.ema_model."):
        mine, theirs = weights(one["model"], prefix), weights(other["model"], prefix)
        apart, way = float((mine - theirs).norm()), float((theirs - begun).norm())
        assert apart < 1e-5 * float(theirs.norm()) and apart < way / 50, (prefix, apart, way)


def test_two_ranks_are_one_training(ended: dict[str, Scenario], alone: Path) -> None:
    out = Path(ended["straight"].out)
    assert_close(out, alone)
    one, other = (moments(load(checkpoints(path)[0])) for path in (out, alone))
    assert float((one - other).norm()) < 1e-5 * float(other.norm()), (
        "the first step's gradient, which has no history yet"
    )
    first, second = (ended["straight"].ended(rank) for rank in (0, 1))
    assert (first["step"], first["reason"]) == (second["step"], second["reason"]) == (STEPS, "steps")
    assert first["digest"] == second["digest"], "student and teacher are the same bits on every rank"
    curves = [[line[key] for line in lines(path, "step") for key in ("loss", "grad_norm")] for path in (out, alone)]
    assert curves[0] == pytest.approx(curves[1], rel=1e-4) and len(curves[0]) == 2 * STEPS
    assert [line["ranks"] for line in lines(out, "start")] == [2], "one rank writes"
    assert (out / "flowfeat.safetensors").is_file()


def test_the_number_of_ranks_may_change_at_a_resume(ended: dict[str, Scenario], alone: Path, shards: Path) -> None:
    shrunk, grown = Path(ended["shrunk"].out), Path(ended["grown"].out)
    run(shards, shrunk, *SETTINGS, resume=True)
    for out, change in ((shrunk, "ranks: 2 -> 1"), (grown, "ranks: 1 -> 2")):
        assert_close(out, alone)
        assert lines(out, "rounding_changed")[0]["changes"] == [change]


def test_data_that_one_rank_cannot_read_ends_all_with_its_message(ended: dict[str, Scenario]) -> None:
    mine, theirs = (ended["data"].ended(rank) for rank in (1, 0))
    assert mine["error"] == "LoaderError" and theirs["error"] == "OtherRank"
    assert theirs["message"].startswith("rank 1: ") and "the storage is gone" in theirs["message"]
    assert "the storage is gone" in lines(Path(ended["data"].out), "error")[0]["message"]
    assert checkpoints(Path(ended["data"].out))[-1].name == "step-0000002.pth"


def test_a_rank_that_dies_ends_the_run(ended: dict[str, Scenario]) -> None:
    left = ended["death"].ended(0)
    assert left["error"] == "OtherRank", left
    assert "another rank of this run is gone" in left["message"] and "--resume" in left["message"]
    assert "\n" not in left["message"]


def test_all_ranks_stop_at_a_number_that_is_none_on_one(ended: dict[str, Scenario]) -> None:
    found = [ended["nan"].ended(rank) for rank in (0, 1)]
    assert [end["error"] for end in found] == ["NonFiniteLoss"] * 2
    assert found[0]["message"] == found[1]["message"] and found[0]["message"].startswith("step 3: flow = nan")
    assert found[0]["message"].partition("Samples of the step: ")[2].count(", ") == 3, "those of both ranks"
    assert checkpoints(Path(ended["nan"].out))[-1].name == "step-0000002.pth"


def test_an_interrupt_of_one_rank_stops_all_after_the_same_step(
    ended: dict[str, Scenario], alone: Path, shards: Path
) -> None:
    found = [ended["interrupt"].ended(rank) for rank in (0, 1)]
    assert [(end["step"], end["reason"]) for end in found] == [(3, "interrupted")] * 2
    out = Path(ended["interrupt"].out)
    run(shards, out, *SETTINGS, resume=True)
    assert_close(out, alone)


def test_batches_that_cannot_be_shared_are_refused() -> None:
    Place(0, 2, 0, 2).check_batch(8, 4)
    with pytest.raises(ValueError, match=r"batch_size = 8 cannot be shared by 3 ranks .*choose a multiple of 6"):
        Place(0, 3, 0, 3).check_batch(8, 2)


def test_a_rank_knows_its_place() -> None:
    said = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert Place.of_environment(said) == Place(3, 4, 1, 2)
    assert Place.of_environment({"RANK": "0"}) == Place(), "variables of something else"
    with pytest.raises(ValueError, match="RANK = 5 of WORLD_SIZE = 4"):
        Place.of_environment(said | {"RANK": "5"})
    with pytest.raises(ValueError, match="incomplete"):
        Place.of_environment({"TORCHELASTIC_RUN_ID": "x", "RANK": "0"})


def test_a_rank_alone_sends_nothing() -> None:
    ranks, tensors = Ranks(Place()), [torch.ones(2)]
    ranks.average(tensors)
    assert ranks.gather("x") == ["x"] and ranks.writes and torch.equal(tensors[0], torch.ones(2))
    assert list(islice(ranks.together(count(1), lambda: None), 2)) == [1, 2]
    wishes: Iterator[Stop | None] = iter([None, "interrupted"])
    assert list(ranks.together(count(1), lambda: next(wishes))) == [1]
    assert ranks.stop == "interrupted"


def test_ranks_share_the_cores_and_take_a_gpu_each(monkeypatch: pytest.MonkeyPatch, shards: Path) -> None:
    monkeypatch.setattr("trainer.device.usable_cores", lambda: 8)
    config = config_for(shards, "train.threads=0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as torchrun sets it
    assert cpu_threads(config, Place(1, 4, 1, 2), None) == 4
    assert cpu_threads(config, Place(), None) == 1, "said by the user"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert cpu_threads(config, Place(), None) == 8
    assert cpu_threads(config, Place(), 3) == 3, "as the run began"
    assert cpu_threads(config_for(shards, "train.threads=2"), Place(), 3) == 2
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert str(training_device(config_for(shards), Place(1, 2, 1, 2))) == "cuda:1"
    with pytest.raises(ValueError, match="torch sees 2 CUDA devices"):
        training_device(config_for(shards), Place(2, 3, 2, 3))
    with pytest.raises(ValueError, match="3 ranks cannot share one GPU"):
        training_device(config_for(shards, "train.device=cuda:0"), Place(0, 3, 0, 3))


def test_ranks_that_start_from_different_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(Place(0, 2, 0, 2))
    monkeypatch.setattr(ranks, "gather", lambda value: [value, "another"])
    with pytest.raises(OtherRank, match=r"do not start from the same weights: these, another"):
        ranks.check_equal("weights", "these")


def test_an_uninterrupted_run_of_one_rank_is_untouched(shards: Path, tmp_path: Path, alone: Path) -> None:
    """The road through `Ranks` changes no bit where there is one."""
    run(shards, tmp_path / "run", *SETTINGS, "log.every=3")
    assert_equal(final_state(tmp_path / "run"), final_state(alone))

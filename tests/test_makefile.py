"""What the make targets would run, without running it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.module_graph import ROOT


def commands(*arguments: str) -> str:
    """The command lines of `make -n`."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed here")
    done = subprocess.run(
        ["make", "-n", "--no-print-directory", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    ("arguments", "config"),
    [
        ((), "configs/kinetics.toml"),
        (("DATASET=kinetics",), "configs/kinetics.toml"),
        (("DATASET=ytvos",), "configs/ytvos.toml"),
        (("DATASET=folder",), "configs/real.toml"),
        (("DATASET=ytvos", "CONFIG=mine.toml"), "mine.toml"),
    ],
)
def test_train_takes_the_settings_of_its_data_set(arguments: tuple[str, ...], config: str) -> None:
    assert f"--config {config} " in commands("train", *arguments)


def test_train_on_several_gpus_goes_through_torchrun() -> None:
    started = "python -m torch.distributed.run --standalone --nproc-per-node=4 -m trainer train --config "
    assert started in commands("train", "GPUS=4")
    for one in ((), ("GPUS=1",)):
        assert "torch.distributed" not in commands("train", *one)


def test_extraction_takes_the_papers_network_for_the_papers_data_sets() -> None:
    assert "--flow sea-raft-m " in commands("extract-flow", "DATASET=kinetics")
    assert "--flow dis " in commands("extract-flow", "DATASET=folder")


def test_extraction_is_shared_out_on_request() -> None:
    plain = commands("extract-flow", "DATASET=folder")
    assert "--runner" not in plain and "--part" not in plain
    assert "--runner ray " in commands("extract-flow", "DATASET=folder", "RUNNER=ray")
    assert "--part 2/8 " in commands("extract-flow", "DATASET=folder", "PART=2/8", "RUNNER=local")


@pytest.mark.parametrize("name", ["ROOT", "SHARDS", "PASSES", "FLOW", "DATASET"])
def test_an_empty_variable_is_named_before_anything_is_made(name: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed here")
    ready = ["--no-print-directory", "-o", "none/.ready", "VENV=none"]
    for target in ("extract-flow", "plan"):
        done = subprocess.run(["make", *ready, target, f"{name}="], cwd=ROOT, capture_output=True, text=True)
        wanted = f"Error: {name} is empty: give it a value ({name}=...), or leave it out for its default\n"
        assert done.returncode == 2 and done.stderr.startswith(wanted) and done.stdout == ""


def test_plan_takes_what_extraction_takes() -> None:
    both = ("DATASET=ytvos", "ROOT=v", "PASSES=16", "EXTRACT=--workers 3")
    planned = commands("plan", *both, "PLAN=--gpus 8")
    options = commands("extract-flow", *both).partition(" pipeline extract ")[2].strip()
    assert " --out data/shards/ytvos --flow sea-raft-m " in options
    assert f"-m pipeline plan {options} --gpus 8" in planned


def test_the_demo_sweep_makes_its_own_data_and_is_judged_on_it() -> None:
    lines = commands("sweep")
    assert "pipeline extract" in lines
    assert "trainer sweep configs/sweeps/demo.toml --shards data/shards/demo-0 " in lines
    assert "probes sweep --sweep runs/sweeps/demo --davis data/demo-0/davis" in lines


def test_a_sweep_takes_its_sets_by_name_and_is_judged_on_request() -> None:
    named = ("sweep", "SWEEP=mine/loss.toml", "SHARDS=a", "SHARDS_RAFT=b", "SHARDS_WINDOW9=c", "JOBS=3")
    lines = commands(*named)
    assert "pipeline" not in lines
    assert "trainer sweep mine/loss.toml --shards a " in lines and "--out runs/sweeps/loss --jobs 3" in lines
    assert "--set RAFT=b" in lines and "--set WINDOW9=c" in lines
    assert 'if [ -n "" ]' in lines
    assert "--davis d --jobs 3" in commands(*named, "DAVIS=d")
    based = commands(*named, "BASE=configs/demo.toml", "TRAIN=train.steps=9 probe.height=96")
    assert "--jobs 3 --base configs/demo.toml train.steps=9 probe.height=96; " in based
    other = commands("sweep", "SHARDS=a")
    assert "pipeline" not in other and "demo.toml --shards a " in other


def test_probing_without_a_model_ends_before_anything_is_made(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed here")
    ready = ["--no-print-directory", "-o", "none/.ready", "VENV=none"]
    for named in ([f"DEMO={tmp_path}"], [f"RUN={tmp_path}", "DAVIS=d"]):
        done = subprocess.run(["make", *ready, "probe-all", *named], cwd=ROOT, capture_output=True, text=True)
        wanted = f"Error: no model {tmp_path}/flowfeat.safetensors: run make demo first, or name a run (RUN=dir)\n"
        assert done.returncode == 2 and done.stderr.startswith(wanted) and done.stdout == ""


def test_the_suite_runs_in_as_many_processes_as_asked_for() -> None:
    assert "-n" not in commands("test").split() and "pytest -n 5 " in commands("test", "JOBS=5")


def test_lint_covers_benches_and_tests() -> None:
    lines = commands("lint")
    assert "ruff check ." in lines and "ruff format --check ." in lines
    assert "mypy" in lines
    settings = (ROOT / "pyproject.toml").read_text()
    assert '"bench"' in settings.split("[tool.mypy]")[1] and '"tests"' in settings.split("[tool.mypy]")[1]

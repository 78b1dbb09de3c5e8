"""Choosing an estimator by name: one line in a table adds one, and everything that can be refused is refused there."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.flow.cli import commands
from pipeline.flow.dis import DisChoice
from pipeline.flow.estimator import ESTIMATORS, EstimatorOptions, choose
from pipeline.flow.files import read_flow
from pipeline.flow.networks.table import NETWORKS
from pipeline.flow.options import named_values

ROOT = Path(__file__).parents[3]


def options_for(name: str) -> EstimatorOptions:
    return EstimatorOptions("random:0" if name in NETWORKS else None)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_choice_keeps_its_name_can_be_pickled_and_states_what_it_is(name: str) -> None:
    choice = choose(name, options_for(name))
    assert choice.name == name
    assert pickle.loads(pickle.dumps(choice)) == choice
    statement = choice.statement()
    assert "name" not in statement and "weights" in statement
    assert json.loads(json.dumps(statement)) == statement


def test_the_table_of_estimators_needs_neither_torch_nor_opencv() -> None:
    code = "import sys, pipeline.flow.estimator; sys.exit(bool({'torch', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_exact_flow_is_asked_for_the_square_that_windows_are_cut_from() -> None:
    assert choose("truth", image_size=100).statement()["image_size"] == 100
    assert choose("truth").statement()["image_size"] == 448


@pytest.mark.parametrize("options", [EstimatorOptions(device="cuda"), EstimatorOptions(precision="bf16")])
def test_exact_flow_refuses_what_it_has_no_use_for(options: EstimatorOptions) -> None:
    with pytest.raises(ValueError, match=r"truth estimator .*leave"):
        choose("truth", options)


def test_options_are_name_value_pairs() -> None:
    assert named_values(["preset=fast", "note=a=b", "empty="]) == {"preset": "fast", "note": "a=b", "empty": ""}
    with pytest.raises(ValueError, match="NAME=VALUE, not 'fast'"):
        named_values(["preset=fast", "fast"])


def run(*arguments: object) -> str:
    done = CliRunner().invoke(commands, [str(argument) for argument in arguments])
    assert "Traceback" not in done.output
    return done.output


def test_an_estimator_of_another_family_is_one_file_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The toy of the tests, on the command line like any other; it runs out of memory above two pairs."""
    monkeypatch.setitem(ESTIMATORS, "toy", "tests.pipeline.flow.toy_network:choose")
    writer = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (40, 32))
    for value in (10, 20, 40, 80, 160):
        writer.write(np.full((32, 40, 3), value, np.uint8))
        cv2.imwrite(str(tmp_path / f"{value}.png"), np.full((32, 40, 3), value, np.uint8))
    writer.release()
    run("flow", tmp_path / "10.png", tmp_path / "40.png", "--flow", "toy", "--out", tmp_path / "out.flo")
    assert (read_flow(tmp_path / "out.flo")[0] == 30).all()
    assert "4 pairs" in run("flow", tmp_path / "in.avi", "--flow", "toy", "--out", tmp_path / "out.mp4")
    wrong = run("flow", tmp_path / "10.png", tmp_path / "40.png", "--flow", "toy", "--flow-option", "batchpairs=3")
    assert "toy has no option 'batchpairs'; did you mean batch_pairs?" in wrong
    assert "did you mean toy" in run("flow", "a.png", "b.png", "--flow", "tooy")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_running_out_of_memory_is_one_line_with_a_way_out(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: DisChoice) -> None:
        raise error

    monkeypatch.setattr(DisChoice, "build", fail)
    output = run("flow", "a.png", "b.png", "--out", "x.png")
    assert output.count("\n") == 1 and "memory" in output and "batch_pairs=1" in output

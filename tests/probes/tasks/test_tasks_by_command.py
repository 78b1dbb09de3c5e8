"""Depth, homography and tracking from the command line with a real network: tables, page, resumption, `all`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from probes.cli import commands
from probes.report import records
from probes.tasks.table import TASKS
from tests.probes.data.test_tracks import arrays
from tests.probes.small_depth import write_folder


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(commands(TASKS), [str(argument) for argument in arguments])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_folder(tmp_path / "depth", 4)
    (tmp_path / "tracks").mkdir()
    np.savez(tmp_path / "tracks/<b>goat.npz", **arrays())
    return tmp_path


def test_all_three_at_once_and_again(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    folders = ("--depth", data / "depth", "--images", data / "depth", "--tracks", data / "tracks")
    small = ("--height", 32, "--depth-iterations", 2, "--depth-batch", 2, "--depth-bins", 8, "--depth-runs", 2)
    given = (*folders, *small, "--views", 1, "--points", 9, "--most-images", 2)
    run = ("all", "--model", checkpoint, "--out", out, *given)
    first = invoke(*run)
    assert first.exit_code == 0, first.output
    page = (out / "index.html").read_text()
    for name, units in (("depth", 2), ("homography", 2), ("tracking", 1)):
        stored = records.read(out).last_run(name)
        assert stored is not None and len(stored.data) == units and stored.settings["height"] == 32
        rows = list(csv.DictReader((out / f"{name}.csv").open()))
        assert {row["source"] for row in rows} == {"encoder", "random_decoder", "flowfeat", "chance"}
        assert f'id="{name}"' in page
    assert "&lt;b&gt;goat" in page and "<b>goat" not in page
    assert "measured depth" in page and "normals: encoder + FlowFeat" in page and "tracks: encoder alone" in page
    again = invoke(*run)
    assert again.stdout == first.stdout
    assert again.stderr.count("are already measured") == 3
    other = invoke("depth", "--depth", data / "depth", *small[:-1], 1, "--model", checkpoint, "--out", out, "--seed", 1)
    assert "starting afresh" in other.stderr and "seed 0 -> 1" in other.stderr


@pytest.mark.parametrize(
    ("command", "flag", "layout"),
    [
        ("depth", "--depth", "16-bit depth PNGs"),
        ("homography", "--images", "pictures"),
        ("tracking", "--tracks", "npz"),
    ],
)
def test_an_empty_folder_is_refused_in_one_line(
    checkpoint: Path, tmp_path: Path, command: str, flag: str, layout: str
) -> None:
    (tmp_path / "empty").mkdir()
    result = invoke(command, flag, tmp_path / "empty", "--model", checkpoint, "--out", tmp_path / "out")
    assert result.exit_code == 1
    (line,) = result.stderr.strip().splitlines()
    assert "expected" in line and layout in line

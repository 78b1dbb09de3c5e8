"""A data set that is not there: one line that names the layout expected and where to get it, from every probe."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from probes.cli import commands
from probes.tasks.table import TASKS

SEGMENTATION = ("--segmentation", "SegmentationClass/*.png", "host.robots.ox.ac.uk")
EXPECTED = {
    "vos": ("--davis", "JPEGImages/480p/<sequence>/*.jpg", "davischallenge.org"),
    "vos-knn": ("--davis", "Annotations/480p/<sequence>/*.png", "davischallenge.org"),
    "segmentation": SEGMENTATION,
    "segmentation-linear": SEGMENTATION,
    "segmentation-knn": SEGMENTATION,
    "depth": ("--depth", "rgb/0001.jpg with depth/0001.png", "cs.nyu.edu"),
    "homography": ("--images", "a folder with .jpg, .jpeg or .png pictures", "folders below"),
    "tracking": ("--tracks", "points [n, t, 2]", "github.com/google-deepmind/tapnet"),
    "motion": ("--shards", "a shard set", "python -m pipeline extract"),
}


def test_every_probe_with_data_is_asked() -> None:
    assert {task.name for task in TASKS if any(option.data for option in task.options().values())} == set(EXPECTED)


@pytest.mark.parametrize("there", [False, True], ids=["nowhere", "empty"])
@pytest.mark.parametrize("name", list(EXPECTED))
def test_it_is_one_line_with_the_layout_and_the_place(tmp_path: Path, name: str, there: bool) -> None:
    flag, layout, where = EXPECTED[name]
    folder = tmp_path / "data"
    if there:
        folder.mkdir()
    given = [name, flag, str(folder), "--model", "no-such-model.safetensors", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(commands(TASKS), given)
    assert result.exit_code == 1 and "Traceback" not in result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert result.stderr.strip().splitlines()[-1] == line
    assert str(folder) in line and layout in line and where in line, line
    assert not (tmp_path / "out").exists(), "found out before anything is made"

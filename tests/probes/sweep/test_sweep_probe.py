"""A sweep's [probe] is checked against the probes there are before anything is trained: any task, its options, its data."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from probes.cli import main
from probes.sweep.probe import sweep_probe
from probes.tasks.table import TASKS
from trainer import ProbeSettings

SWEEP = """
[[rows]]
name = "full"

[probe]
"""


def check(tmp_path: Path, probe: str, *arguments: object) -> Result:
    file = tmp_path / "some.toml"
    file.write_text(SWEEP + probe)
    return CliRunner().invoke(main, ["check-sweep", str(file), *map(str, arguments)])


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ('task = "vso"', "no probe is called 'vso'; did you mean vos"),
        ('metric = "KF"', "probe.metric = 'KF' is no figure of the probe 'vos'"),
        ("hight = 3", "the probe 'vos' has no option 'hight'; did you mean height"),
        (
            'task = "depth"\niterations = 3',
            "the probe 'depth' has no option 'iterations'; did you mean depth-iterations",
        ),
        ('height = "tall"', "probe.height = 'tall': 'tall' is not a valid integer"),
        ("height = [1, 2]", r"probe.height = (1, 2) is not what --height takes"),
        ("height = true", "probe.height = True is not what --height takes"),
        ("standardise = 1", "probe.standardise = 1 must be true or false"),
        ("year = 2018", "probe.year = 2018"),
        ("iterations = 0", "probe: iterations 0 must be at least 1"),
        ('davis = "dir"', "the probe 'vos' has no option 'davis'"),
    ],
)
def test_what_would_fail_after_hours_is_said_before(tmp_path: Path, probe: str, message: str) -> None:
    done = check(tmp_path, probe)
    assert done.exit_code == 1 and message in done.output and done.output.count("\n") == 1
    assert "some.toml" in done.output


def test_any_probe_can_judge_a_sweep(tmp_path: Path) -> None:
    for task in TASKS:
        done = check(tmp_path, f'task = "{task.name}"')
        assert done.exit_code == 0, done.output
        assert f"judged by {task.name}, {task.metric(task.headline).heading}" in done.output


def test_the_command_line_counts(tmp_path: Path) -> None:
    assert check(tmp_path, "", "probe.height=96", "train.steps=9").exit_code == 0
    assert "'hight'" in check(tmp_path, "", "probe.hight=96").output


def test_data_is_opened_before_anything_is_trained(tmp_path: Path, davis: Path) -> None:
    assert check(tmp_path, 'sequences = ["boxes"]', "--davis", davis).exit_code == 0
    missing = check(tmp_path, 'sequences = ["bokses"]', "--davis", davis)
    assert missing.exit_code == 1 and "bokses" in missing.output
    other = check(tmp_path, "", "--depth", davis)
    assert other.exit_code == 1 and "the sweep's probe vos takes --davis, not --depth" in other.output


def test_data_at_an_address_stays_one(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="the extra `remote` is not installed")
    missing = check(tmp_path, 'task = "motion"', "--shards", "memory://none/set/")
    assert missing.exit_code == 1 and "no shard set at memory://none/set:" in missing.output, missing.output


def test_options_become_the_probes_command_line() -> None:
    options = (("segmentation_size", 128), ("classes", "names.txt"), ("split", "test"))
    probe = sweep_probe(ProbeSettings("segmentation-linear", "", options), TASKS)
    assert probe.arguments() == ["--segmentation-size", "128", "--classes", "names.txt", "--split", "test"]
    flags = sweep_probe(ProbeSettings("vos", "J", (("standardise", False), ("sequences", ("a", "b")))), TASKS)
    assert flags.arguments() == ["--sequences", "a,b"] and flags.metric.name == "J"

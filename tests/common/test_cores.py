"""How many threads are started where nobody says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common import cores
from common.cores import quota, usable_cores, usable_processors

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, sys.maxsize),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, sys.maxsize),
        ({}, sys.maxsize),
    ],
)
def test_a_containers_quota_counts(tmp_path: Path, files: dict[str, str], wanted: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert quota(tmp_path) == wanted


def test_hardware_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        (tmp_path / f"cpu{number}/topology").mkdir(parents=True)
        (tmp_path / f"cpu{number}/topology/thread_siblings_list").write_text(siblings + "\n")
    monkeypatch.setattr(cores, "PROCESSORS", tmp_path)
    monkeypatch.setattr(cores, "CGROUP", tmp_path / "none")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert usable_cores() == 2 and usable_processors() == 4
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3, 9}, raising=False)
    assert usable_cores() == 2, "processor 9 says nothing of siblings"
    assert usable_processors() == 3
    (tmp_path / "none").mkdir()
    (tmp_path / "none/cpu.max").write_text("50000 100000")
    assert usable_cores() == usable_processors() == 1


def test_commands_of_the_trainer_wait_passively_before_torch_is_there() -> None:
    """A setting that OpenMP reads when torch loads it: too late afterwards."""
    code = (
        "import os, sys\nfrom click.testing import CliRunner\nfrom trainer.cli import main\n"
        "CliRunner().invoke(main, ['export', '--help'])\n"
        "print(os.environ['OMP_WAIT_POLICY'])\n"
    )
    early = "import sys, trainer.cli\nassert 'torch' not in sys.modules\n"
    for said, wanted in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        environment |= {"OMP_WAIT_POLICY": said} if said else {}
        done = subprocess.run(
            [sys.executable, "-c", early + code], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.stdout.strip() == wanted, done.stderr

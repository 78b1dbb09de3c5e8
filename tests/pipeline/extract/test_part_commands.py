"""`extract --part` as a person or Slurm runs it: what it says at its end, and a part that is killed beside another."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from common import lease
from pipeline.cli import main
from shards.reader import ShardSet
from shards.verify import verify
from tests.module_graph import ROOT
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import digests, make_videos, request

SMALL = ["--image-size", "64", "--flow-size", "32", "--chunk-videos", "2", "--workers", "1"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"), 6)


def extract(videos: Path, out: Path, *more: str) -> Result:
    base = ["extract", "--dataset", "folder", "--root", str(videos), "--out", str(out), "--passes", "2"]
    return CliRunner().invoke(main, [*base, *SMALL, *more])


def test_a_part_says_what_is_still_out(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    first = extract(videos, out, "--part", "2/2")
    assert first.exit_code == 0, first.output
    assert "part 2/2: 2 of the list's 6 videos = 2 ok" in first.output
    assert f"{out}: 4 of 6 shards are still out: 4 of part 1/2 (nobody is at work on it: run it)" in first.output
    none = extract(videos, out, "--part", "9/9")
    assert none.exit_code == 0 and "part 9/9: 0 of the list's 6 videos = 0 ok" in none.output, none.output
    assert "2 of part 1/9 (nobody is at work on it: run it), 2 of part 3/9 (" in none.output
    last = extract(videos, out, "--part", "1/2", "--json")
    body = json.loads(last.stdout.splitlines()[-1])
    assert last.exit_code == 0 and (body["part"], body["shards_out"], body["complete"]) == ("1/2", 0, True)
    assert body["of_list"] == {"listed": 4, "ok": 4, "rejected": {}, "pending": 0, "gone": 0, "ignored": 0}
    assert "every chunk has landed; the set is complete" in extract(videos, out, "--part", "1/2").output
    assert ShardSet(out).manifest.complete


def test_a_part_whose_videos_are_rejected_fails(tmp_path: Path) -> None:
    mine, out = make_videos(tmp_path / "videos", 3), tmp_path / "set"
    (mine / "synth-00002.mp4").write_bytes(b"")
    failed = extract(mine, out, "--part", "2/2")
    assert failed.exit_code == 3 and "part 2/2: 1 of the list's 3 videos = 0 ok + empty_file 1" in failed.output
    assert "Error: 1 of 1 video of part 2/2 was rejected" in failed.output
    assert extract(mine, out, "--part", "1/2").exit_code == 0


def slurm(videos: Path, out: Path, home: Path, task: int) -> subprocess.Popen[bytes]:
    """The page's script as Slurm would start it, in a checkout of ours."""
    (script,) = re.findall(
        r"```bash\n(#!/bin/bash\n.*?)```", (ROOT / "docs" / "many-machines.md").read_text(), re.DOTALL
    )
    (home / ".venv/bin").mkdir(parents=True, exist_ok=True)
    python = home / ".venv/bin/python"
    python.write_text(f'#!/bin/bash\nPYTHONPATH="{ROOT}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (home / "extract.sh").write_text(script.replace('"$SLURM_ARRAY_TASK_ID/64"', '"$SLURM_ARRAY_TASK_ID/2"'))
    assert '"$SLURM_ARRAY_TASK_ID/64"' in script and "#SBATCH --array=1-64" in script
    named = {
        "DATASET": "folder",
        "ROOT": str(videos),
        "SHARDS": str(out),
        "FLOW": "dis",
        "DEVICE": "cpu",
        "PASSES": "2",
    }
    environment = {**os.environ, **named, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_CPUS_PER_TASK": "1"}
    command = ["bash", "extract.sh", *SMALL]
    return subprocess.Popen(command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_slurm_kills_a_task_beside_another_and_starts_it_again(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    tasks = [slurm(videos, out, tmp_path, task) for task in (1, 2)]
    while not list((out / ".locks").glob("part-1-of-2-*")) and tasks[0].poll() is None:
        time.sleep(0.01)
    tasks[0].send_signal(signal.SIGKILL)
    killed, ended = (task.communicate(timeout=120)[0].decode() for task in tasks)
    assert tasks[0].returncode == -signal.SIGKILL, killed
    assert tasks[1].returncode == 0 and "part 2/2: 2 of the list's 6 videos = 2 ok" in ended, ended
    began = time.monotonic()
    again = slurm(videos, out, tmp_path, 1)
    said = again.communicate(timeout=120)[0].decode()
    assert again.returncode == 0 and "the set is complete" in said, said
    assert time.monotonic() - began < lease.LEASE_S, "nobody waits for a process that is known to be dead"
    run_here(request(videos, tmp_path / "whole"))
    assert digests(out) == digests(tmp_path / "whole") and verify(out, deep=True) == []

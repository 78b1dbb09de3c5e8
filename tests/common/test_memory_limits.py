"""How much memory is said to be free inside a container or a batch job, which end whoever takes more than their limit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from common import memory
from common.memory import available_bytes, left_by_limits
from pipeline.flow.memory import budget_bytes

GIB = 1 << 30


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def unified(group: str, limit: str, used: int, stat: str = "anon 1\ninactive_file 0\nactive_file 0") -> dict[str, str]:
    return {f"{group}memory.max": limit, f"{group}memory.current": str(used), f"{group}memory.stat": stat}


def older(group: str, limit: int, used: int, cached: int = 0) -> dict[str, str]:
    stat = f"inactive_file 9\ntotal_shmem 7\ntotal_inactive_file {cached}\ntotal_active_file 0"
    names = {"limit_in_bytes": limit, "usage_in_bytes": used, "stat": stat}
    return {f"memory/{group}memory.{name}": str(value) for name, value in names.items()}


@pytest.mark.parametrize(
    ("own", "files", "left"),
    [
        ("0::/", unified("", "1000", 400), 600),
        ("0::/", unified("", "1000", 900, "file 800\nshmem 500\ninactive_file 200\nactive_file 100"), 400),
        ("0::/", unified("", "1000", 1001), 0),
        ("0::/", unified("", "max", 400), sys.maxsize),
        ("0::/job/step", unified("job/step/", "max", 1) | unified("job/", "1000", 300) | unified("", "9000", 0), 700),
        ("0::/job/step", unified("job/step/", "500", 1) | unified("job/", "1000", 900), 100),
        ("0::/out/of/sight", unified("", "1000", 400), 600),
        ("0::/../other", unified("", "1000", 400) | unified("other/", "10", 0), 600),
        ("5:cpu:/c\n4:memory:/job/step\n0::/", older("job/step/", 1000, 900, 300) | older("", 1 << 62, 0), 400),
        ("5:cpu:/c\n4:hugetlb,memory:/docker/1a", older("", 800, 300), 500),
        ("4:memory:/job/step", older("job/step/", 1000, 0) | older("job/", 300, 100), 200),
        ("4:memory:/job", {"memory/job/memory.limit_in_bytes": "50", "memory/job/memory.usage_in_bytes": "20"}, 30),
        ("0::/", {}, sys.maxsize),
        ("nonsense", unified("", "1000", 400), 600),
    ],
)
def test_the_tightest_limit_around_a_process_counts(tmp_path: Path, own: str, files: dict[str, str], left: int) -> None:
    cgroup = written(tmp_path / "cgroup", files)
    assert left_by_limits(cgroup, written(tmp_path / "proc", {"self/cgroup": own})) == left


def test_without_proc_what_is_mounted_counts(tmp_path: Path) -> None:
    assert left_by_limits(written(tmp_path, unified("", "1000", 400)), tmp_path / "none") == 600


def test_a_batch_of_flow_stays_within_the_containers_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of what is free, the other half being other workers'; the machine's own free memory where that is less."""
    proc = written(
        tmp_path / "proc", {"self/cgroup": "0::/", "meminfo": f"MemTotal: 1 kB\nMemAvailable: {64 << 20} kB"}
    )
    monkeypatch.setattr(memory, "PROC", proc)
    monkeypatch.setattr(memory, "CGROUP", written(tmp_path / "cgroup", unified("", str(3 * GIB), GIB)))
    assert available_bytes() == 2 * GIB and budget_bytes(torch.device("cpu")) == GIB
    written(tmp_path / "cgroup", unified("", "max", GIB))
    assert available_bytes() == 64 * GIB and budget_bytes(torch.device("cpu")) == 4 * GIB
    written(proc, {"meminfo": f"MemAvailable: {1 << 10} kB"})
    written(tmp_path / "cgroup", unified("", str(3 * GIB), GIB))
    assert available_bytes() == 1 << 20

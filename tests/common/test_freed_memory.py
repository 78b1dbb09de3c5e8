"""Memory that is freed: kept by whoever asks for that, given back by everybody else."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from tests.module_graph import ROOT

FREE_16_MIB = """
import sys
import numpy as np
from common.freed_memory import OF_A_VIDEO, keep_freed_memory

def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

if sys.argv[1] == "keep":
    keep_freed_memory(OF_A_VIDEO)
np.ones(1 << 20, np.uint8)
before = resident_bytes()
arrays = [np.ones(2 << 20, np.uint8) for _ in range(8)]
held = resident_bytes() - before
del arrays
print(held, resident_bytes() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say what a process holds")
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
@pytest.mark.parametrize("manner", ["keep", "give back"])
def test_freed_memory_stays_on_request(manner: str) -> None:
    command = [sys.executable, "-c", FREE_16_MIB, manner]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    held, left = (int(word) for word in done.stdout.split())
    assert held > 14 << 20
    assert left > 14 << 20 if manner == "keep" else left < 8 << 20

"""Descriptors 0, 1 and 2 are what every process takes them for, also where it was started without them."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.video.arena import Arena

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2), ()])
def test_what_was_closed_stands_for_the_null_device(closed: tuple[int, ...], tmp_path: Path) -> None:
    say = (
        "import os, pathlib, sys; from common.standard_streams import open_standard_streams; open_standard_streams();"
        "found = [os.path.samefile(f'/proc/self/fd/{n}', os.devnull) and os.get_inheritable(n) for n in range(3)];"
        "pathlib.Path(sys.argv[1]).write_text(repr((found, os.open(os.devnull, os.O_RDONLY))))"
    )
    redirected = " ".join(f"{number}>&-" for number in closed)
    command = ["sh", "-c", f'exec "$0" "$@" {redirected}', sys.executable, "-c", say, str(tmp_path / "found")]
    subprocess.run(command, cwd=ROOT, stdin=subprocess.PIPE, capture_output=True, check=True)
    assert (tmp_path / "found").read_text() == repr(([number in closed for number in range(3)], 3))


def test_shared_memory_is_never_a_standard_stream(tmp_path: Path) -> None:
    """Else a child's null device would take the pixels that are meant for it."""
    say = "import pathlib, sys; from pipeline.video.arena import Arena;" + (
        "pathlib.Path(sys.argv[1]).write_text(str(Arena().descriptor))"
    )
    command = ["sh", "-c", 'exec "$0" "$@" <&- 2>&-', sys.executable, "-c", say, str(tmp_path / "found")]
    subprocess.run(command, cwd=ROOT, check=True)
    assert int((tmp_path / "found").read_text()) > 2


def test_a_limit_of_file_sizes_is_named_with_a_way_out() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    arena = Arena()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        with pytest.raises(OSError, match=r"3 MiB that processes share; raise the limit of file sizes \(ulimit -f\)"):
            arena.grow(3 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        arena.close()

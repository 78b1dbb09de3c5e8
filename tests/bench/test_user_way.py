"""The user's way is too long for a test; what it is made of is tested elsewhere. Here: that it can be read, and spares what is there."""

from __future__ import annotations

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "user_way.sh"


def test_it_writes_into_no_directory_that_exists(tmp_path: Path) -> None:
    done = subprocess.run(["bash", str(SCRIPT), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1 and "exists: name another directory" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert "usage" in subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True).stderr


def test_its_commands_are_the_makefiles() -> None:
    """Every target that it calls is one of the Makefile, which the README names."""
    text = SCRIPT.read_text()
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    targets = {line.split(":")[0] for line in (SCRIPT.parents[1] / "Makefile").read_text().splitlines() if ":" in line}
    called = {part.split()[0] for part in text.split('"${make[@]}" ')[1:]} - {'"$venv/.ready"'}
    assert called == {"extract-flow", "verify", "train", "sweep", "probe"} and called <= targets

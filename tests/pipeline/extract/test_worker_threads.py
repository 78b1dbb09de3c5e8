"""How many threads a network runs on in a flow worker: it shapes rounding, so it must not depend on who started the worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
{first}
from dataclasses import dataclass
from pathlib import Path

from pipeline.extract.local import LocalRunner


@dataclass(frozen=True)
class Asking:
    answer: Path

    def build(self):
        import torch

        self.answer.write_text(str(torch.get_num_threads()))


if __name__ == "__main__":
    with LocalRunner(2, Asking(Path({answer!r}))) as runner:
        runner.prepare(1)
"""


def test_a_program_that_has_imported_torch_first(tmp_path: Path) -> None:
    threads = {}
    for first in ("", "import torch"):
        answer = tmp_path / f"answer{len(first)}"
        program = tmp_path / f"program{len(first)}.py"
        program.write_text(PROGRAM.format(first=first, answer=str(answer)))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        environment["OMP_NUM_THREADS"] = (
            "4"  # what torch finds where it is imported before the worker has said otherwise
        )
        subprocess.run([sys.executable, str(program)], check=True, env=environment, timeout=300)
        threads[first] = answer.read_text()
    assert threads == {"": "1", "import torch": "1"}

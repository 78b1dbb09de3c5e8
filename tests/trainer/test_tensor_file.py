"""Atomic writing and training state: what is read back is what was written, or an error that says so."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shards.files import LEFTOVER_AGE_S, atomic_path
from trainer.tensor_file import load_training_state, read_tensor_file, save_training_state

ROOT = Path(__file__).parents[2]


def state() -> dict[str, Any]:
    moments = {"exp_avg": torch.arange(40.0), "step": torch.tensor(7.0)}
    return {
        "model": {"w": torch.ones(3, 4)},
        "optim": {"state": {0: moments}},
        "step": 7,
        "why": "x",
        "h": [1, 2.5, None, (True,)],
    }


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return bool(a == b)


def test_state_comes_back_as_it_went(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "step-7.pt"
    save_training_state(path, state())
    assert equal(load_training_state(path), state())
    assert [entry.name for entry in path.parent.iterdir()] == ["step-7.pt"]


def test_a_failed_write_leaves_the_old_file_and_no_remains(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyError("interrupted")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_only_old_remains_of_killed_writers_are_removed(tmp_path: Path) -> None:
    old, young = tmp_path / ".a.txt.11.tmp", tmp_path / ".a.txt.12.tmp"
    for leftover, age_s in ((old, 2 * LEFTOVER_AGE_S), (young, 0.0)):
        leftover.write_text("half")
        stamp = leftover.stat().st_mtime - age_s
        os.utime(leftover, (stamp, stamp))
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert not old.exists() and young.exists()


def test_a_killed_writer_leaves_the_previous_checkpoint_whole(tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    save_training_state(path, state())
    code = (
        "import os, sys, torch\nfrom pathlib import Path\nfrom shards.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half a file')\n    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False).returncode == -9
    assert equal(load_training_state(path), state())


def test_every_truncation_is_noticed_and_names_the_previous_checkpoint(tmp_path: Path) -> None:
    previous, path = tmp_path / "step-6.pt", tmp_path / "step-7.pt"
    save_training_state(previous, state())
    save_training_state(path, state())
    whole = path.read_bytes()
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"step-7\.pt is damaged: .*; use the previous one, .*step-6\.pt"):
            load_training_state(path)
    previous.unlink()
    with pytest.raises(ValueError, match="no other lies in"):
        load_training_state(path)


def test_no_flipped_bit_changes_what_is_read(tmp_path: Path) -> None:
    """torch.load itself does not look at checksums; a flip is refused here, or falls on padding and changes nothing."""
    path = tmp_path / "step-7.pt"
    save_training_state(path, state())
    whole = path.read_bytes()
    refused = 0
    flips = [(place, place % 8) for place in range(0, len(whole), 7)] + [(whole.rindex(b"archive/data/0") - 8, 4)]
    for place, bit in flips:  # the last one marks a tensor as a folder: PyTorch would hand out unset memory for it
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            assert equal(load_training_state(path), state()), f"bit flip at byte {place} went unnoticed"
        except ValueError as error:
            assert "damaged" in str(error)
            refused += 1
    assert refused > len(flips) / 3


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.pt"):
        load_training_state(tmp_path / "none.pt")
    page = tmp_path / "page.pth"
    page.write_text("<html>404</html>")
    with pytest.raises(ValueError, match=r"page\.pth is neither a PyTorch nor a safetensors file"):
        read_tensor_file(page)
    listed = tmp_path / "list.pth"
    torch.save([1, 2], listed)
    with pytest.raises(ValueError, match="holds a list"):
        read_tensor_file(listed)


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch exploded",)


def test_code_in_a_file_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, write in (
        ("zip.pth", torch.save),
        ("plain.pth", lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))),
    ):
        path = tmp_path / name
        write({"model": Bomb()}, path)
        with pytest.raises(ValueError, match=rf"{name} is damaged or holds objects"):
            read_tensor_file(path)
    assert not (tmp_path / "exploded").exists()


def test_what_could_not_be_read_back_is_refused_before_writing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"state\['a'\]\[1\] is a numpy.float64"):
        save_training_state(tmp_path / "a.pt", {"a": [1.0, np.float64(2)]})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_os_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    """A limit on the file size stands in for the full disk."""
    path = tmp_path / "step.pt"
    save_training_state(path, state())
    code = (
        "import signal, resource, sys, torch\nfrom pathlib import Path\nfrom trainer.tensor_file import save_training_state\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n    save_training_state(Path(sys.argv[1]), {'w': torch.zeros(100_000)})\n"
        "except OSError as error:\n    print(error)\n    sys.exit(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3 and "step.pt" in done.stdout, done.stderr
    assert equal(load_training_state(path), state()) and list(tmp_path.iterdir()) == [path]

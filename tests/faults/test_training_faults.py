"""Training when the disk is full at a checkpoint: what was saved before stays, and the same command continues."""

from __future__ import annotations

import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.runs import assert_equal, final_state, lines, run
from tests.trainer.training_set import write_training_set
from trainer import checkpoint
from trainer.checkpoint import checkpoints

SMALL_DISK = 100_000  # bytes that a file may have: enough for a log, not for a checkpoint


def test_a_full_disk_at_a_checkpoint_keeps_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size of files stands in for the full disk, from the second checkpoint on."""
    shards, out = write_training_set(tmp_path / "set"), tmp_path / "run"
    save, before = checkpoint.save, resource.getrlimit(resource.RLIMIT_FSIZE)
    settings = ("train.steps=6", "log.checkpoint_every=2")

    def saving(run_dir: Path, step: int, *arguments: Any) -> Path:
        if step >= 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_DISK, before[1]))
        return save(run_dir, step, *arguments)

    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(checkpoint, "save", saving)
            with pytest.raises(OSError, match=r"step-0000004\.pth.*is the disk full\?"):
                run(shards, out, *settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [path.name for path in checkpoints(out)] == ["step-0000002.pth"]
    assert lines(out, "error")[0]["kind"] == "OSError" and not list(out.rglob("*.tmp*"))
    assert run(shards, out, *settings, resume=True).step == 6
    run(shards, tmp_path / "straight", *settings)
    assert_equal(final_state(out), final_state(tmp_path / "straight"))

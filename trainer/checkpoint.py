"""Checkpoints of a run: which lie there, write the next one, keep the last few, check that one may be continued from.

runs/NAME/config.toml holds the resolved settings, runs/NAME/checkpoints/step-0001000.pth everything else: model, teacher,
optimiser, the number of steps done (which is all the state the data order has) and the identity of the shard set.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.command import PlainError
from common.lock import directory_lock
from shards.files import write_atomic
from trainer.config import Config, changed_settings, load_config, to_toml
from trainer.config import rounding_changes as changed_rounding
from trainer.tensor_file import load_training_state, save_training_state

FOLDER = "checkpoints"
CONFIG = "config.toml"
CHECKPOINT_FORMAT = 1


def checkpoints(run_dir: Path) -> list[Path]:
    """Checkpoint files of a run, oldest first."""
    return sorted((run_dir / FOLDER).glob("step-*.pth"))


def _name(step: int) -> str:
    return f"step-{step:07d}.pth"


def save(run_dir: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint after `step` steps; only when it is safely there are older ones than the last `keep` removed."""
    path = run_dir / FOLDER / _name(step)
    save_training_state(path, {"checkpoint_format": CHECKPOINT_FORMAT, "step": step, **state})
    for old in [p for p in checkpoints(run_dir) if p != path][: -(keep - 1) or None]:
        old.unlink()
    return path


def find(run_dir: Path, config: Config, resume: bool) -> dict[str, Any] | None:
    """The state to continue from, or None where the run begins. ValueError where the directory does not suit the wish."""
    held = run_dir / CONFIG
    found = checkpoints(run_dir)
    if resume and not held.is_file():
        raise ValueError(f"{run_dir} holds no run to resume (no config.toml): check --out, or leave --resume out")
    if not resume and (found or held.is_file()):
        raise ValueError(f"{run_dir} already holds a run: add --resume to continue it, or choose another --out")
    if resume:
        _check_same(held, config)
    return load(found[-1]) if found else None


@contextmanager
def sole_trainer(run_dir: Path, state: Mapping[str, Any] | None, resume: bool) -> Iterator[None]:
    """Hold the run's directory while it is trained. state: what `find` gave, before anything was held.

    Raises PlainError where another training is at work in it, or has been since `find` looked.
    """
    with directory_lock(run_dir, "a training"):
        newest = [path.name for path in checkpoints(run_dir)[-1:]]
        expected = [_name(int(state["step"]))] if state else []
        if newest != expected or (not resume and (run_dir / CONFIG).is_file()):
            raise PlainError(f"another training has been at work in {run_dir} just now: run the same command again")
        yield


@dataclass(frozen=True)
class Arithmetic:
    """What decides how sums are rounded besides the config: CPU threads of torch as they are, ranks of the run."""

    threads: int
    ranks: int


def rounding_changes(run_dir: Path, config: Config, state: Mapping[str, Any], now: Arithmetic) -> list[str]:
    """Lines "key: old -> new" of what a continued run may change although it changes how sums are rounded."""
    lines = changed_rounding(load_config(run_dir / CONFIG), config)
    if "threads" in state:  # the number that was used says more than the setting, which may be 0
        lines = [line for line in lines if not line.startswith("train.threads:")]
        if state["threads"] != now.threads:
            lines.append(f"train.threads: {state['threads']} -> {now.threads}")
    if state.get("ranks", now.ranks) != now.ranks:
        lines.append(f"ranks: {state['ranks']} -> {now.ranks}")
    return lines


def record_config(run_dir: Path, config: Config) -> None:
    """Write the resolved settings beside the run."""
    write_atomic(run_dir / CONFIG, to_toml(config))


def load(path: Path) -> dict[str, Any]:
    """A checkpoint's content. ValueError where the file is damaged or is no checkpoint of this version."""
    state = load_training_state(path)
    if state.get("checkpoint_format") != CHECKPOINT_FORMAT:
        raise ValueError(
            f"{path} is no training checkpoint of version {CHECKPOINT_FORMAT} (it says {state.get('checkpoint_format')!r})"
        )
    return state


def _check_same(held: Path, config: Config) -> None:
    try:
        before = load_config(held)
    except (ValueError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"the run's own config cannot be read: {error}") from error
    changed = changed_settings(before, config)
    if changed:
        raise ValueError(
            f"{held.parent} was started with other settings, so it cannot be continued with these ({'; '.join(changed)}): "
            "restore them, or choose another --out"
        )

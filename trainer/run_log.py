"""What a run leaves behind while it trains: log.jsonl, TensorBoard scalars and pictures, a progress line.

One JSON object per line, each with "event" and "time": start, step (means since the last such line), holdout (figures of
videos that are not trained on), skipped (a sample that could not be read), checkpoint, pictures, stop, error. Lines are
written whole, so a killed run leaves a readable log; a resumed run appends, and steps after the checkpoint it continues from
appear twice (the later line counts).
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image
from rich.console import Console

from common.progress import ProgressDisplay
from shards.files import atomic_file
from trainer.holdout import Figures
from trainer.pictures import Picture
from trainer.update import GRADIENT_NORM

PLAIN_EVERY_S = 120.0  # without a terminal nobody waits longer than this and one step for the time left
LOG_NAMES = {"total": "loss", GRADIENT_NORM: "grad_norm"}


class RunLog:
    """The log of one run; a context manager. `console` false silences the terminal (tests)."""

    def __init__(
        self, run_dir: Path, *, steps: int, first_step: int, tensorboard: bool = True, console: bool = True
    ) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.run_dir, self.steps = run_dir, steps
        self._file = open(run_dir / "log.jsonl", "a", encoding="utf-8")
        self._board: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # heavy, and not wanted in every run

            # After a resume TensorBoard forgets what lies at purge_step and later; the point of the checkpoint's step stays.
            self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=first_step + 1)
        terminal = Console(stderr=True, quiet=not console, highlight=False)
        # Plain lines are written at log steps, with what `step` knows, and between them where steps are long (`reached`).
        self._open = ExitStack()
        progress = ProgressDisplay("", "steps", console=terminal, plain_every_s=math.inf)
        self._progress = self._open.enter_context(progress)
        self._progress.begin(steps, first_step)
        self._told = time.perf_counter()

    def event(self, event: str, **facts: Any) -> None:
        """Append one line. Numbers that JSON cannot hold are written as text."""
        line = {"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **facts}
        self._file.write(json.dumps({key: _plain(value) for key, value in line.items()}, allow_nan=False) + "\n")
        self._file.flush()

    def say(self, text: str) -> None:
        """A line for whoever is watching."""
        self._progress.say(text)

    def reached(self, step: int) -> None:
        """So many steps are done: moves the bar and the time left. Without a terminal, a line where the last is long ago."""
        self._progress.update(step)
        if time.perf_counter() - self._told >= PLAIN_EVERY_S:
            self._say_progress()

    def _say_progress(self) -> None:
        self._told = time.perf_counter()
        if not self._progress.console.is_terminal:
            self.say(self._progress.line())

    def step(self, step: int, facts: dict[str, Any]) -> None:
        """Means over the steps since the last call."""
        self.event("step", step=step, **facts)
        self._scalars(step, facts)
        bad = f", {facts['skipped']} unreadable" if facts["skipped"] else ""
        terms = ", ".join(f"{key.removeprefix('loss_')} {facts[key]:.4f}" for key in facts if key.startswith("loss_"))
        rate, waiting = (
            f"{facts['samples_per_s']:.1f} samples/s",
            f"{100 * facts['data_wait_share']:.0f}% waiting for data",
        )
        self._progress.update(step, status=f"loss {facts['loss']:.4f} ({terms}), {rate}, {waiting}{bad}")
        self._say_progress()

    def holdout(self, step: int, figures: Figures) -> None:
        """Figures of the held-out samples: a log line, curves under holdout/ in TensorBoard, a line on the terminal."""
        facts: dict[str, Any] = {"loss": figures.loss, **{f"loss_{k}": value for k, value in figures.terms.items()}}
        text = f"step {step}: held out, {figures.samples} samples: loss {figures.loss:.4f}"
        if figures.flow:
            facts |= asdict(figures.flow)
            text += (
                f", {100 * figures.flow.explained:.1f}% of flow variance explained (affine fit "
                f"{100 * figures.flow.explained_by_affine:.1f}%), end-point error {figures.flow.epe_px:.3f} px (mean flow "
                f"{figures.flow.epe_px_of_mean:.3f}, affine fit {figures.flow.epe_px_of_affine:.3f})"
            )
        if figures.lattice is not None:
            facts["lattice"] = figures.lattice
            text += f", patch lattice {100 * figures.lattice:.1f}%"
        if figures.unreadable:
            text += f", {figures.unreadable} unreadable"
        counts = {"samples": figures.samples, "unreadable": figures.unreadable, "seconds": round(figures.seconds, 3)}
        self.event("holdout", step=step, **facts, **counts)
        self._scalars(step, {f"holdout/{key}": value for key, value in facts.items()})
        self.say(text)

    def _scalars(self, step: int, facts: dict[str, Any]) -> None:
        if self._board is None:
            return
        for key, value in facts.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                self._board.add_scalar(key, value, step)

    def picture(self, step: int, name: str, picture: Picture) -> None:
        """Keep a picture as PNG under pictures/ and in TensorBoard."""
        path = self.run_dir / "pictures" / f"{name}-{step:07d}.png"
        with atomic_file(path) as stream:
            Image.fromarray(picture).save(stream, format="PNG")
        self.event("pictures", step=step, file=str(path.relative_to(self.run_dir)))
        if self._board is not None:
            self._board.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        self._open.close()
        if self._board is not None:
            self._board.close()
        self._file.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.event("error", kind=type(error).__name__, message=str(error))
        self.close()


class SilentLog(RunLog):
    """The log of a rank that does not write: takes everything, leaves nothing behind."""

    def __init__(self, run_dir: Path, *, steps: int, first_step: int) -> None:
        self.run_dir, self.steps = run_dir, steps

    def event(self, event: str, **facts: Any) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def reached(self, step: int) -> None:
        pass

    def step(self, step: int, facts: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


class Window:
    """Means of what happened since the last log line. A checkpoint in between keeps `state()`, so that the next line of a
    continued run is the mean over the same steps as if it had never been stopped; its rates are those of this process."""

    def __init__(self, wait_s: float, state: Mapping[str, Any] | None = None) -> None:
        """state: what an earlier window's `state()` gave."""
        self.started, self.wait_s = time.perf_counter(), wait_s
        self.samples = 0
        self.steps: int = state["steps"] if state else 0
        self.sums: dict[str, float] = dict(state["sums"]) if state else {}

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "sums": dict(self.sums)}

    def add(self, steps: Sequence[Mapping[str, float]], samples: int) -> None:
        """The numbers of some steps (`trainer.tally`), each of so many samples, under the names that they have in the log."""
        for numbers in steps:
            self.samples += samples
            self.steps += 1
            for name, value in numbers.items():
                key = LOG_NAMES.get(name, f"loss_{name}")
                self.sums[key] = self.sums.get(key, 0.0) + value

    def leave_out(self, seconds: float) -> None:
        """So much time went into something else than training."""
        self.started += seconds

    def facts(self, wait_s: float) -> dict[str, float]:
        """Means of the added values, samples per second, and the share of time spent waiting for data."""
        elapsed = max(time.perf_counter() - self.started, 1e-9)
        means = {key: self.sums[key] / self.steps for key in sorted(self.sums, key=lambda key: key != "loss")}
        rate = {"samples_per_s": self.samples / elapsed, "data_wait_share": (wait_s - self.wait_s) / elapsed}
        return {**means, **{key: round(value, 4) for key, value in rate.items()}}


def peak_memory_mb() -> float:
    """Most resident memory this process has had, MB (2^20)."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value

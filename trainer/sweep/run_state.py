"""How far a run is, from the log.jsonl in its directory: read once, or followed while somebody else writes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOG = "log.jsonl"
MODEL = "flowfeat.safetensors"


@dataclass
class RunState:
    """What the log last said. stopped: why the run ended, empty while it goes on. shards: identity of its set."""

    step: int = 0
    loss: float | None = None
    samples_per_s: float | None = None
    stopped: str = ""
    shards: str = ""


class LogFollower:
    """Reads what has been added to a log since the last look."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.state = run_dir, RunState()
        self._read = 0

    def look(self) -> RunState:
        try:
            with open(self.run_dir / LOG, "rb") as file:
                file.seek(self._read)
                new = file.read()
        except FileNotFoundError:
            return self.state
        whole = new[: new.rfind(b"\n") + 1]  # a line that is being written is read next time
        self._read += len(whole)
        for line in whole.splitlines():
            self._take(_parsed(line))
        return self.state

    def _take(self, line: dict[str, Any]) -> None:
        state, event = self.state, line.get("event")
        if event == "start":
            state.step, state.stopped, state.shards = int(line["step"]), "", str(line.get("shards", ""))
        elif event == "step":
            state.step = int(line["step"])
            state.loss, state.samples_per_s = _number(line.get("loss")), _number(line.get("samples_per_s"))
        elif event == "stop":
            state.step, state.stopped = int(line["step"]), str(line["reason"])


def read_state(run_dir: Path) -> RunState:
    """The state at this moment. A run whose model is missing has not stopped, whatever its log says."""
    state = LogFollower(run_dir).look()
    if not (run_dir / MODEL).is_file():
        state.stopped = ""
    return state


def loss_curve(run_dir: Path) -> list[tuple[int, float]]:
    """(step, loss) in order of steps; of steps that were done again after a resume, the later line counts."""
    points: dict[int, float] = {}
    try:
        lines = (run_dir / LOG).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    for line in map(_parsed, lines):
        loss = _number(line.get("loss"))
        if line.get("event") == "step" and loss is not None:
            points[int(line["step"])] = loss
    return sorted(points.items())


def _parsed(line: bytes) -> dict[str, Any]:
    """A log line; empty where a killed machine left half of one."""
    try:
        parsed = json.loads(line)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

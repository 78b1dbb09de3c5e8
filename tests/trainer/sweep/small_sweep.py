"""A sweep file small enough for tests, and children that only pretend to train."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from trainer.sweep.plan import Run

HEAD = """
baseline = "full"
seeds = [0, 1]

[settings]
encoder = { variant = "tiny_dino8", init = "random" }
views.image_size = 32
train = { batch_size = 4, steps = 6, lr = 1e-3, threads = 1, device = "cpu" }
data.workers = 0
log = { every = 1, pictures_every = 0, tensorboard = false }
"""

ROWS = """
[[rows]]
name = "full"

[[rows]]
name = "random"
source = "random_decoder"

[[rows]]
name = "no gradient"
title = "(c) no gradient term"
settings = { "loss.grad_weight" = 0.0 }
paper = -1.5

[[rows]]
name = "raft"
shards = "RAFT"
"""

PRETEND = """
import json, pathlib, sys
out, steps, shards, status = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
out.mkdir(parents=True, exist_ok=True)
with open(out / "log.jsonl", "a") as log:
    lines = [{"event": "start", "step": 0, "shards": shards}]
    lines += [{"event": "step", "step": n, "loss": 1 / n, "samples_per_s": 8.0} for n in range(1, steps + 1)]
    lines += [] if status != "0" else [{"event": "stop", "step": steps, "reason": "steps"}]
    log.write("".join(json.dumps(line) + "\\n" for line in lines))
(out / "config.toml").write_text(pathlib.Path(sys.argv[5]).read_text())
if status != "0":
    print("a word before\\nError: the disk is <full>", file=sys.stderr)
    sys.exit(int(status))
(out / "flowfeat.safetensors").write_bytes(b"model")
"""


def write_sweep(path: Path, text: str = HEAD + ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def pretend(run: Run, status: int = 0) -> tuple[str, ...]:
    """The command line of a child that writes a run's log and model at once."""
    facts = (str(run.directory), str(run.config.train.steps), run.shards, str(status), str(run.settings_file))
    return (sys.executable, "-c", PRETEND, *facts)


def log_lines(run_dir: Path, event: str) -> list[dict[str, object]]:
    parsed = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [line for line in parsed if line["event"] == event]

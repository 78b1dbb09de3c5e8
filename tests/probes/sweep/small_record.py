"""A sweep's record as stage 2 leaves it, with models that need no training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from probes.sweep.probe import SweepProbe, sweep_probe
from probes.tasks.table import TASKS
from trainer import SweepRecord, read_record

NASTY = '<script>alert(1)</script> & "loss" | *x*'


def probe_of(record: SweepRecord) -> SweepProbe:
    return sweep_probe(record.probe, TASKS)


def row(name: str, seeds: tuple[int, ...] = (0, 1), **given: Any) -> dict[str, Any]:
    """One row of sweep.json, whose runs are finished unless said otherwise."""
    status = given.pop("status", "finished")
    runs = [
        {"seed": seed, "directory": f"rows/{name}/seed-{seed}", "status": status, "error": given.get("error", "")}
        for seed in seeds
    ]
    given.pop("error", None)
    facts: dict[str, Any] = {"title": name, "source": "flowfeat", "trained": True, "settings": [], "shards": ""}
    return {"name": name, **facts, "paper": None, "left_out": "", "trained_by": "", "runs": runs, **given}


def write_record(
    out: Path, *rows: dict[str, Any], model: Path | None = None, task: str = "vos", metric: str = "JF", **options: Any
) -> SweepRecord:
    """Write OUT/sweep.json, and into every finished run a model and a log of ten steps. options: of the probe."""
    chosen = {**({"height": 64, "iterations": 5} if task == "vos" else {}), **options}
    whole = {"format": 2, "name": "some", "file": "some.toml", "baseline": rows[0]["name"]}
    whole |= {"probe": {"task": task, "metric": metric, "options": list(chosen.items())}, "rows": list(rows)}
    out.mkdir(parents=True, exist_ok=True)
    (out / "sweep.json").write_text(json.dumps(whole))
    for each in rows:
        for run in each["runs"]:
            directory = out / run["directory"]
            if run["status"] != "finished" or not each["trained"]:
                continue
            directory.mkdir(parents=True, exist_ok=True)
            log = [{"event": "step", "step": step, "loss": 1 / step} for step in range(1, 11)]
            (directory / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
            if model is None:
                (directory / "flowfeat.safetensors").write_bytes(f"{each['name']} {run['seed']}".encode())
            else:
                shutil.copy(model, directory / "flowfeat.safetensors")
    return read_record(out)

"""A training run in minutes on whatever clips there are, and what came of it: J&F against an untrained decoder and the bare encoder.

Reads what `bench/gpu_data.py` has left. Trains with the paper's loss for the given time less what the probe takes, exports, probes
with the linear VOS probe. Without an encoder file the frozen encoder is random, as in the demo: the ranks of the three sources are
the result then, not their height.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench.record import record
from common.command import PlainError, one_line_errors
from common.device import pick_device
from probes.run import Request, run_tasks
from probes.sources.table import usual_names
from probes.tasks.vos import LinearVos
from trainer.config import Config, load_config
from trainer.train import train

ROOT = Path(__file__).resolve().parents[1]
PATH = click.Path(path_type=Path)
PROBE_S = 75.0
"""Kept for the probe and the start."""


def settings(
    data: Path, device: torch.device, encoder: Path | None, minutes: float, workers: int, small: bool
) -> Config:
    """On CUDA the paper's model, batch and precision; on a CPU the demo's. The step count never ends the run, time does."""
    words = [f"data.shards={data / 'shards'}", f"train.device={device}", f"train.max_minutes={minutes}"]
    words += [f"data.workers={workers}", "train.steps=1000000", "log.pictures_every=0", "log.checkpoint_every=1000000"]
    if small:
        words += ["encoder.variant=tiny_dino8", "views.image_size=32", "train.batch_size=4", "log.every=1"]
        words += ["train.threads=1"]
    elif device.type == "cuda":
        words += ["encoder.variant=dinov2_vits14", "views.image_size=224", "train.batch_size=128"]
        words += ["train.precision=bf16", "log.every=20"]
    if encoder:
        words += ["encoder.init=pretrained", f"encoder.weights={encoder}"]
    return load_config(ROOT / "configs" / "demo.toml", words)


def record_training(log: Path, gpu: str | None) -> None:
    """Steps, rate and losses from the run's own log."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [line for line in lines if line.get("event") == "step"]
    if not steps:
        raise PlainError(f"{log} holds no step: give the run more time")
    first, last = steps[0], steps[-1]
    record("learning", "steps", last["step"], "steps", device=gpu)
    record("learning", "samples_per_s", last["samples_per_s"], "1/s", "of the last logged steps", device=gpu)
    record("learning", "first_loss", first["loss"], "", f"mean up to step {first['step']}", device=gpu)
    record("learning", "last_loss", last["loss"], "", f"mean up to step {last['step']}", device=gpu)


def record_probe(model: Path, davis: Path, out: Path, device: torch.device, gpu: str | None, height_px: int) -> None:
    """J&F in per cent of every usual source."""
    request = Request(model, out, tuple(usual_names()), 0, False, str(device), (LinearVos,))
    (section,) = run_tasks([LinearVos(root=davis, height_px=height_px)], request)
    metric = LinearVos.metric(LinearVos.headline)
    for source in section.results.sources:
        value = section.mean(source, metric.name)
        if value is not None:
            record(
                "learning", f"{metric.name}_{source}", metric.shown(value), "%", f"VOS at {height_px} px", device=gpu
            )


@click.command(context_settings={"show_default": True})
@click.option("--data", type=PATH, required=True, help="Directory that gpu_data.py has filled.")
@click.option("--out", type=PATH, required=True, help="Gets the run's log and curves.")
@click.option("--device", default="auto")
@click.option("--encoder", type=PATH, help="A published DINOv2-S14 file.  [default: random weights]")
@click.option("--seconds", default=240.0, help="For everything.")
@click.option("--workers", default=1)
@click.option("--small", is_flag=True)
@one_line_errors(out_of_memory="other processes use the device")
def main(data: Path, out: Path, device: str, encoder: Path | None, seconds: float, workers: int, small: bool) -> None:
    """Train, export, probe."""
    began, chosen = time.monotonic(), pick_device(device)
    training_s = 5.0 if small else max(5.0, seconds - PROBE_S)
    run_dir = data / "run"
    config = settings(data, chosen, encoder, training_s / 60, workers, small)
    outcome = train(config, run_dir, console=False)
    gpu = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else None  # the loader forks before CUDA is used
    out.mkdir(parents=True, exist_ok=True)
    for kept in ("log.jsonl", "curves.png"):
        if (run_dir / kept).is_file():
            shutil.copyfile(run_dir / kept, out / f"learning-{kept}")
    record_training(run_dir / "log.jsonl", gpu)
    assert outcome.model_file is not None, outcome.reason
    record_probe(outcome.model_file, data / "davis", data / "report", chosen, gpu, 64 if small else 240)
    record("learning", "seconds", time.monotonic() - began, "s", "training and probe", device=gpu)


if __name__ == "__main__":
    main()

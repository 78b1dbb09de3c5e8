"""Training with flow inside the loop, as the paper's code does it: the baseline of caching, and a row of the reuse sweep.

    python -m trainer sweep configs/sweeps/reuse.toml --shards SET ...        # leaves OUT/rows/fresh-pairs/seed-0.toml and others
    python bench/online_trainer.py --config OUT/rows/fresh-pairs/seed-0.toml --videos DIR --dataset synthetic --flow dis

A run's settings, its videos and a flow network come in; frames are decoded and flow is computed for every step, then the trainer's own
update takes over: same views, same losses, same optimiser. The run's directory gets config.toml, log.jsonl and the model, so
that probes and sweeps take it for any other run. It does not continue: a run that was stopped begins again.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.online_pairs import OnlinePairs
from common.command import one_line_errors
from common.freed_memory import OF_A_STEP, keep_freed_memory
from pipeline.flow.estimator import EstimatorChoice, EstimatorOptions, choose
from pipeline.flow.options import named_values
from pipeline.video.datasets import DATASETS, Video, list_videos
from shards.reader import ShardSet
from shards.schema import Settings
from trainer.checkpoint import record_config
from trainer.config import Config, flatten, load_config
from trainer.device import training_device
from trainer.distributed import Place
from trainer.learner import Learner, check_sizes
from trainer.model_file import export_model
from trainer.order import SampleOrder
from trainer.run_log import RunLog, Window
from trainer.update import Update
from trainer.views import cut_views, draw_boxes

PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class OnlineSource:
    """What an online run reads instead of shards. settings: of the set that it stands in for."""

    videos: tuple[Video, ...]
    settings: Settings
    flow: EstimatorChoice

    def pairs(self, config: Config, device: torch.device) -> OnlinePairs:
        """The run's batches. ValueError where data.offsets names neighbours that the settings do not."""
        offsets = self.settings.offsets
        strangers = [offset for offset in config.data.offsets if offset not in offsets]
        if strangers:
            raise ValueError(f"data.offsets = {list(config.data.offsets)}: the settings have {list(offsets)}")
        columns = [k for k, offset in enumerate(offsets) if offset in config.data.offsets] or None
        every = np.ones((len(self.videos), len(offsets)), bool)
        return OnlinePairs(
            self.videos,
            self.settings,
            self.flow.build(),
            SampleOrder(every, seed=config.train.seed, columns=columns),
            batch_size=config.train.batch_size,
            device=device,
            workers=config.data.workers,
        )


def train_online(config: Config, source: OnlineSource, run_dir: Path, *, console: bool = True) -> Path:
    """Train `train.steps` steps and return the model file. Raises ValueError or OSError for bad input, PlainError for bad videos."""
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    device = training_device(config, Place())
    if device.type == "cpu":
        keep_freed_memory(OF_A_STEP)
    began = time.monotonic()
    with source.pairs(config, device) as pairs:
        learner = Learner(config, device)
        source_size = check_sizes(learner.model, config, source.settings.image_size)
        with RunLog(run_dir, steps=config.train.steps, first_step=0, tensorboard=False, console=console) as log:
            record_config(run_dir, config)
            log.event(
                "start", step=0, resumed=False, samples=len(pairs.order), device=str(device), flow=source.flow.name
            )
            window, updates = Window(0.0), list[Update]()
            for step, batch in enumerate(pairs.batches(), start=1):
                boxes = draw_boxes(config.train.seed, batch.positions, config.views.crop_scale, source_size)
                views = cut_views(batch.pixels, boxes, view_size=config.views.image_size, source_size=source_size)
                updates.append(learner.learn(views)._replace(shown={}))
                log.reached(step)
                last = step == config.train.steps
                if step % config.log.every == 0 or last:
                    spent = pairs.wait_s + pairs.flow_s
                    window.add([update.numbers() for update in updates], config.train.batch_size)
                    updates.clear()
                    log.step(step, {**window.facts(spent), "skipped": pairs.replaced})
                    window = Window(spent)
                if last:
                    break
            facts = {"step": config.train.steps, "flow": source.flow.name, **flatten(config)}
            model = run_dir / "flowfeat.safetensors"
            export_model(learner.model, model, {k: list(v) if isinstance(v, tuple) else v for k, v in facts.items()})
            log.event(
                "stop", step=config.train.steps, reason="steps", minutes=round((time.monotonic() - began) / 60, 3)
            )
    return model


def open_source(
    config: Config, dataset: str, videos: Path, list_file: Path | None, flow: str, options: EstimatorOptions
) -> OnlineSource:
    """The videos of a layout with the settings of the run's shard set, whose pairs are thereby the same.

    ValueError where the run has none, or several.
    """
    if len(config.data.sets) != 1:
        raise ValueError(f"data.shards = {config.data.shards!r}: name the one set whose videos are given")
    settings = ShardSet(config.data.sets[0], allow_partial=config.data.allow_partial).manifest.settings
    choice = choose(flow, options, image_size=settings.image_size)
    return OnlineSource(tuple(list_videos(dataset, videos, list_file=list_file)), settings, choice)


@click.command(context_settings={"show_default": True})
@click.option(
    "--config", "config_file", type=PATH, required=True, help="Settings of the run; data.shards names the set."
)
@click.option("--videos", type=PATH, required=True, help="Root of the videos that the set was made of.")
@click.option("--dataset", default="folder", type=click.Choice(DATASETS), help="Layout of the videos.")
@click.option("--list", "list_file", type=PATH, help="Text file of videos to take.")
@click.option("--flow", default="dis", help="Flow estimator.")
@click.option("--weights", help="Weights of the flow network: a file, or random:SEED.")
@click.option("--flow-option", "flow_options", multiple=True, metavar="NAME=VALUE", help="An option of the estimator.")
@click.option("--flow-device", default="cpu", help="Where the flow network runs.")
@click.option("--flow-precision", default="fp32")
@click.option("--out", type=PATH, help="Directory of the run.  [default: the config without its suffix]")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@one_line_errors(out_of_memory="use a smaller train.batch_size or a larger train.accumulate")
def main(
    config_file: Path,
    videos: Path,
    dataset: str,
    list_file: Path | None,
    flow: str,
    weights: str | None,
    flow_options: tuple[str, ...],
    flow_device: str,
    flow_precision: str,
    out: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Train one run with flow inside the loop."""
    config = load_config(config_file, list(overrides))
    run_dir = out or config_file.with_suffix("")
    if (run_dir / "flowfeat.safetensors").is_file():
        raise ValueError(f"{run_dir} holds a finished run: choose another --out, or remove it")
    options = EstimatorOptions(weights, flow_device, flow_precision, named_values(flow_options))
    source = open_source(config, dataset, videos, list_file, flow, options)
    (run_dir / "log.jsonl").unlink(missing_ok=True)  # of a stopped run, which begins again
    click.echo(f"model: {train_online(config, source, run_dir)}")


if __name__ == "__main__":
    main()

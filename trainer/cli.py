"""python -m trainer: train on a shard set, export a model from a run, look at features of pictures.

Heavy imports wait until a command runs, so that --help is immediate. Bad input ends in one line and exit code 1, an
interrupted (but saved) training in exit code 130.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from common.command import INTERRUPTED, Suggesting, one_line_errors
from common.cores import wait_without_spinning
from trainer.features_command import features_command
from trainer.onnx_command import onnx_command
from trainer.sweep.command import sweep_command

OUT_OF_MEMORY = "use a smaller train.batch_size, a larger train.accumulate or a smaller views.image_size"


@click.group(cls=Suggesting, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Stage 2 of FlowFeat: train a feature decoder on a shard set, export it, look at its features."""
    wait_without_spinning()


main.add_command(sweep_command)
main.add_command(features_command)
main.add_command(onnx_command)


@main.command("settings")
def settings_command() -> None:
    """Every setting of a config with what it takes and its default, as Markdown: docs/config.md."""
    from trainer.config_table import config_table

    click.echo(config_table(), nl=False)


@main.command("train")
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="TOML file; without it, the paper's settings."
)
@click.option(
    "--shards",
    multiple=True,
    show_default=False,
    help="Shard set to train on, a folder or an address; several to train on together. Overrides data.shards.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory of the run, such as runs/NAME.")
@click.option("--resume", is_flag=True, help="Continue the run in --out from its last checkpoint.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@one_line_errors(out_of_memory=OUT_OF_MEMORY)
def train_command(
    config_path: Path | None, shards: tuple[str, ...], out: Path, resume: bool, overrides: tuple[str, ...]
) -> None:
    """Train. Settings come from --config, then KEY=VALUE such as train.steps=500; an unknown key is an error."""
    from trainer.config import load_config
    from trainer.train import train

    held = out / "config.toml"
    if resume and config_path is None and held.is_file():
        config_path = held
    named = (*overrides, f"data.shards={_written(shards)}") if shards else overrides
    config = load_config(config_path, named)
    if not config.data.sets:
        raise ValueError("no shard set given: use --shards DIR (make extract-flow creates one)")
    outcome = train(config, out, resume=resume)
    if outcome.reason == "interrupted":
        raise click.exceptions.Exit(INTERRUPTED)


def _written(places: tuple[str, ...]) -> str:
    return json.dumps(places[0] if len(places) == 1 else places)


@main.command("export")
@click.option("--run", "run_dir", type=click.Path(path_type=Path), required=True, help="Directory of a training run.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="FILE.safetensors or FILE.pth to write.")
@click.option("--ema", is_flag=True, help="Export the teacher (EMA decoder) instead of the student.")
@one_line_errors(out_of_memory=OUT_OF_MEMORY)
def export_command(run_dir: Path, out: Path, ema: bool) -> None:
    """Write a model file from the last checkpoint of a run."""
    from trainer.checkpoint import checkpoints, load
    from trainer.config import flatten, load_config
    from trainer.flowfeat import FlowFeat
    from trainer.model_file import export_model

    found = checkpoints(run_dir)
    if not found:
        raise ValueError(f"{run_dir} holds no checkpoint to export: is it the directory of a training run?")
    state = load(found[-1])
    config = load_config(run_dir / "config.toml")
    # The config is the user's own word, so that it may name an encoder whose code will run.
    model = FlowFeat.from_pretrained(found[-1], variant=config.encoder.variant, teacher=ema)
    model.encoder_source = state["encoder_source"]
    settings = {key: list(v) if isinstance(v, tuple) else v for key, v in flatten(config).items()}
    decoder = "teacher" if ema else "student"
    export_model(model, out, {"step": state["step"], "shards": state["shards"], "decoder": decoder, **settings})
    click.echo(f"{out}: {state['variant']}, {decoder} after step {state['step']}")

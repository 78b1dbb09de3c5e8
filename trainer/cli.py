"""python -m trainer: train on a shard set, export a model from a run, look at features of pictures.

Heavy imports wait until a command runs, so that --help is immediate. Bad input ends in one line and exit code 1, an
interrupted (but saved) training in exit code 130.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from common.command import Suggesting, one_line_errors
from trainer.sweep.command import sweep_command

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INTERRUPTED = 130
OUT_OF_MEMORY = "use a smaller train.batch_size, a larger train.accumulate or a smaller views.image_size"


@click.group(cls=Suggesting, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Stage 2 of FlowFeat: train a feature decoder on a shard set, export it, look at its features."""


main.add_command(sweep_command)


@main.command("train")
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="TOML file; without it, the paper's settings."
)
@click.option("--shards", type=click.Path(path_type=Path), help="Shard set to train on; overrides data.shards.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory of the run, such as runs/NAME.")
@click.option("--resume", is_flag=True, help="Continue the run in --out from its last checkpoint.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@one_line_errors(out_of_memory=OUT_OF_MEMORY)
def train_command(
    config_path: Path | None, shards: Path | None, out: Path, resume: bool, overrides: tuple[str, ...]
) -> None:
    """Train. Settings come from --config, then KEY=VALUE such as train.steps=500; an unknown key is an error."""
    from trainer.config import load_config
    from trainer.train import train

    held = out / "config.toml"
    if resume and config_path is None and held.is_file():
        config_path = held
    named = (*overrides, f"data.shards={_quoted(shards)}") if shards else overrides
    config = load_config(config_path, named)
    if not config.data.shards:
        raise ValueError("no shard set given: use --shards DIR (make extract-flow creates one)")
    outcome = train(config, out, resume=resume)
    if outcome.reason == "interrupted":
        raise click.exceptions.Exit(INTERRUPTED)


def _quoted(path: Path) -> str:
    return json.dumps(str(path))


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
    model = FlowFeat.from_pretrained(found[-1], variant=state["variant"], teacher=ema)
    model.encoder_source = state["encoder_source"]
    settings = {
        key: list(v) if isinstance(v, tuple) else v for key, v in flatten(load_config(run_dir / "config.toml")).items()
    }
    decoder = "teacher" if ema else "student"
    export_model(model, out, {"step": state["step"], "shards": state["shards"], "decoder": decoder, **settings})
    click.echo(f"{out}: {state['variant']}, {decoder} after step {state['step']}")


@main.command("features")
@click.option("--model", "model_path", type=click.Path(path_type=Path), required=True, help="Model file or checkpoint.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Directory for <image>.npy and <image>.png."
)
@click.option("--size", default=448, type=click.IntRange(min=16), help="Shorter side the network sees, pixels.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@one_line_errors(out_of_memory="use a smaller --size")
def features_command(model_path: Path, out: Path, size: int, device: str, images: tuple[Path, ...]) -> None:
    """Features of pictures: a float16 array [channels, height, width] and a picture of its first three components each.

    Sides are rounded to what the model takes. An image that cannot be read is named and skipped; the exit code is then 1.
    """
    import numpy as np
    import torch
    from PIL import Image

    from common.device import pick_device
    from common.feature_colors import pca_picture
    from shards.files import atomic_file
    from trainer.flowfeat import FlowFeat

    names = _distinct_names(images)
    target = pick_device(device)
    model = FlowFeat.from_pretrained(model_path).to(target).eval()
    out.mkdir(parents=True, exist_ok=True)
    unreadable = 0
    for path, name in zip(images, names, strict=True):
        try:
            pixels_hwc = _read_image(path, size, model.size_multiple)
        except ValueError as error:
            click.echo(f"skipped: {error}", err=True)
            unreadable += 1
            continue
        _, high = model(FlowFeat.normalise(torch.from_numpy(pixels_hwc)[None]).to(target))
        with atomic_file(out / f"{name}.npy") as stream:
            np.save(stream, high[0].cpu().numpy().astype(np.float16))
        with atomic_file(out / f"{name}.png") as stream:
            Image.fromarray(pca_picture(high[0])).save(stream, format="PNG")
        click.echo(f"{path} -> {out / name}.npy {list(high.shape[1:])}, {out / name}.png")
    if unreadable:
        raise click.ClickException(f"{unreadable} of {len(images)} images could not be read (named above)")


def _distinct_names(images: tuple[Path, ...]) -> list[str]:
    """File stems; where two images share one, the folder's name is put before it, or it is an error."""
    stems = [path.stem for path in images]
    names = [p.stem if stems.count(p.stem) == 1 else f"{p.resolve().parent.name}-{p.stem}" for p in images]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"several images would be written to {', '.join(twice[:3])}: pass them in separate runs")
    return names


def _read_image(path: Path, shorter_px: int, multiple: int) -> NDArray[np.uint8]:
    """RGB [h, w, 3], shorter side resized to about `shorter_px`, both sides to multiples of `multiple`. ValueError names the file."""
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error})") from error
    scale = shorter_px / min(picture.size)
    width, height = (max(multiple, round(side * scale / multiple) * multiple) for side in picture.size)
    return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))

"""python -m pipeline synth: options and progress around `write.generate`."""

from __future__ import annotations

from pathlib import Path

import click

from common.command import one_line_errors
from common.progress import ProgressDisplay
from pipeline.synth.write import generate


def _size(_: click.Context, __: click.Parameter, text: str) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not HEIGHTxWIDTH such as 240x320") from None
    return height, width


@click.command()
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--videos", default=64, help="Training videos, written to OUT/videos.")
@click.option("--davis-sequences", default=6, help="Held-out sequences with masks, written to OUT/davis.")
@click.option("--frames", default=24)
@click.option("--size", default="240x320", callback=_size, help="HEIGHTxWIDTH, pixels.")
@click.option("--fps", default=24.0)
@click.option("--seed", default=0)
@one_line_errors(out_of_memory="use a smaller --size")
def synth(
    out: Path, videos: int, davis_sequences: int, frames: int, size: tuple[int, int], fps: float, seed: int
) -> None:
    """Generate synthetic videos with exact flow, masks and depth."""
    with ProgressDisplay("", "videos and sequences") as display:
        display.begin(videos + davis_sequences)
        generate(out, videos, davis_sequences, seed, frames, size, fps, lambda name, done, total: display.update(done))
    click.echo(f"{out}: {videos} videos, {davis_sequences} sequences with masks")

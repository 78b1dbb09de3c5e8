"""python -m pipeline synth: options and progress around `write.generate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from common.command import one_line_errors
from common.progress import ProgressDisplay
from pipeline.synth.compose import Style
from pipeline.synth.stills import write_stills
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
@click.option(
    "--stills",
    default=0,
    show_default=True,
    help="Held-out pictures with classes, written to OUT/segmentation, and with depth, to OUT/depth; a third to test on.",
)
@click.option(
    "--difficulty",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="0: plain to see. 1: nothing to see, every probe is at chance.",
)
@click.option("--frames", default=24)
@click.option("--size", default="240x320", callback=_size, help="HEIGHTxWIDTH, pixels.")
@click.option("--fps", default=24.0)
@click.option("--seed", default=0)
@one_line_errors(out_of_memory="use a smaller --size")
def synth(
    out: Path,
    videos: int,
    davis_sequences: int,
    stills: int,
    difficulty: float,
    frames: int,
    size: tuple[int, int],
    fps: float,
    seed: int,
) -> None:
    """Generate synthetic videos with exact flow, masks, classes, depth and point tracks."""
    style = Style(difficulty=difficulty)
    with ProgressDisplay("", "videos, sequences and pictures") as display:
        display.begin(videos + davis_sequences + stills)
        if videos or davis_sequences or not stills:
            shown = partial(_show, display)
            generate(out, videos, davis_sequences, seed, frames, size, fps, shown, style=style)
        if stills:
            write_stills(out, stills, seed, size=size, style=style, done=lambda name: display.advance())
    click.echo(
        f"{out}: {videos} videos, {davis_sequences} sequences with masks, {stills} pictures with classes and depth"
    )


def _show(display: ProgressDisplay, name: str, done: int, total: int) -> None:
    display.update(done)

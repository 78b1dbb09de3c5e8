"""python -m trainer features: a model, pictures and videos in; arrays and colored pictures out (`trainer.feature_files`)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from common.command import one_line_errors


@click.command("features")
@click.option(
    "--model", "model_path", required=True, help="Model file, checkpoint, or an official name (docs/models.md)."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory for what is written.")
@click.option("--size", default=448, type=click.IntRange(min=16), help="Shorter side the network sees, pixels.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--format",
    "file_format",
    default="npy",
    type=click.Choice(["npy", "npz", "safetensors"]),
    help="npy: the dense map. npz, safetensors: the encoder's map as well, as `high` and `low`.",
)
@click.option(
    "--keep-every", default=0, type=click.IntRange(min=0), help="Of a video, features of every nth frame too; 0: none."
)
@click.option("--tile", type=click.IntRange(min=1), help="Cut large pictures into tiles of that side, pixels.")
@click.option("--memory", help="Cut pictures that need more than that, such as 4GiB, into the largest tiles that fit.")
@click.argument("files", metavar="IMAGES_AND_VIDEOS...", nargs=-1, required=True, type=click.Path(path_type=Path))
@one_line_errors(out_of_memory="use --memory, or a smaller --size")
def features_command(
    model_path: str,
    out: Path,
    size: int,
    device: str,
    file_format: str,
    keep_every: int,
    tile: int | None,
    memory: str | None,
    files: tuple[Path, ...],
) -> None:
    """Features of pictures: float16 arrays [channels, height, width] and a picture of the first three components each.

    A video becomes an mp4 of its components, in the colors of its first frame. Sides are rounded to what the model takes. A
    file that cannot be read is named and skipped; the exit code is then 1.
    """
    # Here, because they load torch, which --help should not wait for.
    from common.clip import VIDEO_SUFFIXES
    from common.device import pick_device
    from common.progress import ProgressDisplay
    from trainer.extract_features import Extracted, Frugality
    from trainer.feature_files import draw_video, read_image, write_features, write_picture
    from trainer.flowfeat import FlowFeat
    from trainer.tiling import check_tile, parse_bytes

    names = distinct_names(files)
    _keep_sources(files, names, out)
    target = pick_device(device)
    if memory is not None:
        parse_bytes(memory)  # what is wrong for every file is an error, not a reason to skip each
    model = FlowFeat.from_pretrained(model_path).to(target).eval()
    check_tile(model, tile)
    out.mkdir(parents=True, exist_ok=True)
    unreadable = 0

    def video(path: Path, name: str) -> None:
        with ProgressDisplay(path.name, "frames") as display:

            def each(number: int, claimed: int, found: Extracted) -> None:
                if number == 0:
                    display.begin(claimed or None)
                if keep_every and number % keep_every == 0:
                    write_features(out, f"{name}-{number:06d}", found, file_format)
                display.advance()

            colored = out / f"{name}.mp4"
            frames = draw_video(model, path, colored, size, each=each, frugality=Frugality(tile, memory=memory))
        click.echo(f"{path} -> {colored}, {frames} frames")

    def image(path: Path, name: str) -> None:
        found = model.extract(read_image(path, size, model.size_multiple), tile=tile, memory=memory)
        written, colored = write_picture(out, name, found, file_format)
        click.echo(f"{path} -> {written} {list(found.high.shape)}, {colored}")

    for path, name in zip(files, names, strict=True):
        try:
            (video if path.suffix.lower() in VIDEO_SUFFIXES else image)(path, name)
        except ValueError as error:
            click.echo(f"skipped: {error}", err=True)
            unreadable += 1
    if unreadable:
        raise click.ClickException(f"{unreadable} of {len(files)} files could not be read (named above)")


def distinct_names(files: tuple[Path, ...]) -> list[str]:
    """File stems; where two files share one, the folder's name is put before it, or it is an error."""
    stems = Counter(path.stem for path in files)
    names = [path.stem if stems[path.stem] == 1 else f"{path.resolve().parent.name}-{path.stem}" for path in files]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"several files would be written to {', '.join(twice[:3])}: pass them in separate runs")
    return names


def _keep_sources(files: tuple[Path, ...], names: list[str], out: Path) -> None:
    """Raise ValueError where a result would be written over a file that was given."""
    given = {path.resolve() for path in files if path.exists()}
    for name in names:
        for suffix in (".png", ".mp4"):
            if (out / f"{name}{suffix}").resolve() in given:
                raise ValueError(f"{out / name}{suffix} is one of the files given: choose another --out")

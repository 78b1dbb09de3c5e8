"""python -m pipeline: extract | plan | verify | inspect | synth, and the flow tools of `flow_cli`.

Errors that a user can do something about end as one line and a non-zero exit; 0 means that every input is accounted for.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from pipeline.errors import plain_errors
from pipeline.extract.contact_sheet import choose, contact_sheet, write_png
from pipeline.extract.plan import make_plan
from pipeline.extract.progress import ExtractionProgress
from pipeline.extract.run import Request, choice_of, extract, settings_of
from pipeline.flow.cli import commands as flow_commands
from pipeline.flow.estimator import EstimatorOptions
from pipeline.video.datasets import DATASETS, list_videos
from shards import schema
from shards.reader import ShardSet
from shards.schema import Manifest
from shards.verify import verify as verify_set

REJECTED_TOO_MANY = 3
DAMAGED = 4
INTERRUPTED = 130


@click.group(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
def main() -> None:
    """Stage 1: videos in, compressed flow+image shards out."""


def _offsets(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        offsets = tuple(sorted(int(part) for part in text.split(",")))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of whole numbers such as -2,-1,1,2") from None
    if 0 in offsets or len(set(offsets)) != len(offsets):
        raise click.BadParameter(f"{text!r}: offsets are distinct and non-zero, such as -2,-1,1,2")
    return offsets


def _pairs(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    for text in texts:
        if "=" not in text:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE")
    return tuple((text.partition("=")[0], text.partition("=")[2]) for text in texts)


def _source_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        [
            click.option("--dataset", required=True, type=click.Choice(DATASETS), help="Layout of the videos."),
            click.option("--root", required=True, type=click.Path(path_type=Path), help="Where the videos are."),
            click.option("--list", "list_file", type=click.Path(path_type=Path), help="Text file of videos to take."),
            click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory of the shard set."),
            click.option("--flow", default="dis", help="Flow estimator."),
            click.option("--weights", help="Weights of the flow network: a file, or random:SEED."),
            click.option("--passes", default=8, help="Anchors per video; one paper epoch each."),
            click.option("--seed", default=0, help="Seed of the anchors."),
            click.option("--offsets", default="-2,-1,1,2", callback=_offsets, help="Neighbours, in nominal frames."),
            click.option("--image-size", default=448, help="Side of the stored image, pixels."),
            click.option("--flow-size", default=224, help="Side of the square that flow is computed on, pixels."),
            click.option("--jpeg-quality", default=90, type=click.IntRange(1, 100)),
            click.option(
                "--chunk-videos", default=256, type=click.IntRange(1, 10000), help="Videos per chunk and shard."
            ),
            click.option("--keep-neighbours", is_flag=True, help="Also store the neighbour frames."),
            click.option(
                "--keep-confidence", is_flag=True, help="Also store confidence maps, where the estimator gives them."
            ),
            click.option(
                "--flow-option",
                "flow_options",
                multiple=True,
                callback=_pairs,
                metavar="KEY=VALUE",
                help="An option of the estimator.",
            ),
            click.option("--device", default="cpu", help="Where the flow network runs: cpu, cuda, cuda:1."),
            click.option("--precision", default="fp32", help="fp32, tf32, bf16 or fp16."),
        ]
    ):
        command = option(command)
    return command


def _request(kw: dict[str, Any]) -> Request:
    names = (
        "seed",
        "offsets",
        "image_size",
        "flow_size",
        "jpeg_quality",
        "chunk_videos",
        "keep_neighbours",
        "keep_confidence",
    )
    content = {name: kw.pop(name) for name in names}
    for name in ("image_size", "flow_size"):
        if not 16 <= content[name] <= 4096:
            raise ValueError(f"--{name.replace('_', '-')} is {content[name]}; it must be 16..4096")
    extra = dict(kw.pop("flow_options"))
    options = EstimatorOptions(kw.pop("weights"), kw.pop("device"), kw.pop("precision"), extra)
    return Request(content=content, options=options, **kw)


@main.command("extract")
@_source_options
@click.option(
    "--workers", type=int, default=lambda: os.cpu_count() or 1, show_default="number of cores", help="Worker processes."
)
@click.option("--batch", default=16, help="Windows per call of the flow estimator.")
@click.option("--deadline", "deadline_s", default=120.0, help="Seconds that decoding one video may take.")
@click.option(
    "--max-reject-share",
    default=0.5,
    type=click.FloatRange(0, 1),
    help="Fail (exit 3) when more of the videos are rejected.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON at the end.")
@plain_errors
def extract_command(max_reject_share: float, as_json: bool, **kw: Any) -> None:
    """Compute flow over a video set and write a shard set. Rerun the same command to continue; more --passes extend."""
    request = _request(kw)
    console = Console(stderr=True)
    try:
        with ExtractionProgress(console) as progress:
            manifest = extract(request, progress.event, progress.planned)
    except KeyboardInterrupt:
        console.print("interrupted: chunks that have landed are safe; run the same command again to continue")
        sys.exit(INTERRUPTED)
    _summarise(manifest, request.out, as_json)
    rejected = sum(manifest.counts["rejected"].values())
    if rejected > max_reject_share * manifest.counts["videos"] or manifest.counts["samples"] == 0:
        click.echo(
            f"Error: {rejected} of {manifest.counts['videos']} videos were rejected; see videos.parquet in {request.out}",
            err=True,
        )
        sys.exit(REJECTED_TOO_MANY)


def _summarise(manifest: Manifest, out: Path, as_json: bool) -> None:
    counts = dict(manifest.counts)
    size = sum(s.bytes for s in manifest.shards)
    if as_json:
        click.echo(json.dumps({**counts, "bytes": size, "shards": len(manifest.shards), "complete": manifest.complete}))
        return
    rejected = ", ".join(f"{reason} {n}" for reason, n in sorted(counts["rejected"].items())) or "none"
    pairs = ", ".join(f"{status} {n}" for status, n in counts["pairs"].items() if n)
    click.echo(f"{out}: {counts['ok']} of {counts['videos']} videos, rejected: {rejected}")
    click.echo(f"{counts['samples']} samples, pairs: {pairs}; {len(manifest.shards)} shards, {size / 2**20:.1f} MiB")


@main.command()
@_source_options
@plain_errors
def plan(**kw: Any) -> None:
    """Say what `extract` with the same options would do; write nothing."""
    request = _request(kw)
    listing = list_videos(request.dataset, request.root, list_file=request.list_file)
    made = make_plan(request.out, listing, request.root, settings_of(request, choice_of(request)), request.passes)
    missing = made.missing(request.out)
    todo = sum(len(passes) for passes in missing.values())
    click.echo(
        f"{len(made.videos)} videos in {made.chunks} chunks, {made.passes} passes: {todo} of {made.chunks * made.passes} shards to make"
    )
    for line in json.dumps(made.settings.to_json(), indent=2, sort_keys=True).splitlines():
        click.echo(line)


@main.command()
@click.argument("shard_set", type=click.Path(path_type=Path))
@click.option("--deep", is_flag=True, help="Also decode every member and check its statistics.")
@click.option("--json", "as_json", is_flag=True)
@plain_errors
def verify(shard_set: Path, deep: bool, as_json: bool) -> None:
    """Check every byte of a set against its manifest. Exits 4 and names what is damaged."""
    problems = verify_set(shard_set, deep=deep)
    if as_json:
        click.echo(json.dumps([p.__dict__ for p in problems]))
    else:
        for problem in problems:
            click.echo(str(problem), err=True)
        click.echo(f"{shard_set}: {f'{len(problems)} problems' if problems else 'intact'}")
    if problems:
        sys.exit(DAMAGED)


@main.command()
@click.argument("shard_set", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="PNG to write (default: contact-sheet.png in the current directory)."
)
@click.option("--samples", default=6, type=click.IntRange(1, 100), help="How many, spread over the set.")
@click.option("--key", "keys", multiple=True, help="Draw this sample; may be repeated.")
@plain_errors
def inspect(shard_set: Path, out: Path | None, samples: int, keys: tuple[str, ...]) -> None:
    """Print what a set holds and draw a contact sheet: anchors, flow colour wheel, statistics."""
    data = ShardSet(shard_set, allow_partial=True)
    if not len(data):
        raise ValueError(f"{shard_set} holds no samples; see {schema.VIDEOS} for why")
    _summarise(data.manifest, shard_set, as_json=False)
    path = out or Path("contact-sheet.png")
    write_png(path, contact_sheet(data, choose(data, samples, keys)))
    click.echo(f"contact sheet: {path}")


def _size(_: click.Context, __: click.Parameter, text: str) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not HEIGHTxWIDTH such as 240x320") from None
    return height, width


@main.command()
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--videos", default=64, help="Training videos, written to OUT/videos.")
@click.option("--davis-sequences", default=6, help="Held-out sequences with masks, written to OUT/davis.")
@click.option("--frames", default=24)
@click.option("--size", default="240x320", callback=_size, help="HEIGHTxWIDTH, pixels.")
@click.option("--fps", default=24.0)
@click.option("--seed", default=0)
@plain_errors
def synth(out: Path, **kw: Any) -> None:
    """Generate synthetic videos with exact flow, masks and depth."""
    from pipeline.synth import generate

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("synthetic videos", total=None)

        def told(name: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if not bar.console.is_terminal and done * 4 // total > (done - 1) * 4 // total:
                bar.console.print(f"{done}/{total} videos and sequences", highlight=False)

        generate(out, progress=told, **kw)
    click.echo(f"{out}: {kw['videos']} videos, {kw['davis_sequences']} sequences with masks")


for _command in flow_commands.commands.values():
    main.add_command(_command)

"""What the other parts of `bench/gpu.py` read: clips, a shard set of them, sequences with masks.

OUT/videos     the clips given, or synthetic ones       OUT/davis    the DAVIS directory given, or synthetic sequences
OUT/clips      every clip under several names: a list as long as a chunk of the engine, at no cost but links
OUT/shards     flow of `dis` at the paper's sizes, which needs no weights and no GPU: what training reads
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record
from common.command import one_line_errors
from pipeline.extract.local import LocalRunner
from pipeline.extract.run import ExtractionRequest, extract, stated
from pipeline.flow.estimator import choose
from pipeline.synth import write_davis, write_videos
from pipeline.video.datasets import Video, list_videos
from shards.schema import Manifest, Settings

CLIPS = 256
"""Length of the list that the engine works on: its usual chunk."""

PATH = click.Path(path_type=Path, exists=True, resolve_path=True)


def link_clips(videos: Sequence[Video], out: Path, rounds: int = 1) -> int:
    """`rounds` links to each video, under different names; returns how many."""
    out.mkdir(parents=True)
    for number in range(rounds):
        for index, video in enumerate(videos):
            (out / f"{number:02d}-{index:04d}-{video.path.name}").symlink_to(video.path.resolve())
    return rounds * len(videos)


def make_shards(videos: Path, out: Path, *, passes: int, workers: int, image_size: int, flow_size: int) -> Manifest:
    """A set of these videos with the flow of `dis`. Raises as `extract` does."""
    choice = choose("dis")
    settings = Settings("folder", stated(choice), image_size=image_size, flow_size=flow_size)
    request = ExtractionRequest(videos, out, settings, choice, passes=passes)
    return extract(request, LocalRunner(workers, choice), lambda event, tally: None, lambda plan, tally: None)


@click.command(context_settings={"show_default": True})
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--videos", type=PATH, help="Folder of clips.  [default: synthetic ones]")
@click.option("--davis", type=PATH, help="DAVIS directory.  [default: synthetic sequences]")
@click.option("--workers", default=1)
@click.option("--passes", default=8)
@click.option("--small", is_flag=True)
@one_line_errors(out_of_memory="use fewer --workers")
def main(out: Path, videos: Path | None, davis: Path | None, workers: int, passes: int, small: bool) -> None:
    """Put everything into OUT."""
    out.mkdir(parents=True, exist_ok=True)
    frames, size = (12, (128, 160)) if small else (24, (240, 320))
    if videos:
        link_clips(list_videos("folder", videos)[:CLIPS], out / "videos")
    else:
        write_videos(out / "videos", 2 if small else 48, 0, frames=frames, size=size)
    if davis:
        (out / "davis").symlink_to(davis)
    else:
        write_davis(out / "davis", 1 if small else 6, 1000, frames=frames, size=size)
    found = list_videos("folder", out / "videos")
    clips = link_clips(found, out / "clips", 1 if small else max(1, CLIPS // len(found)))
    sizes = {"image_size": 128, "flow_size": 64} if small else {"image_size": 448, "flow_size": 224}
    manifest = make_shards(out / "videos", out / "shards", passes=2 if small else passes, workers=workers, **sizes)
    source = f"{'given' if videos else 'synthetic'} clips, {'given' if davis else 'synthetic'} masks"
    record("gpu", "clips_for_the_engine", clips, "", source)
    record("gpu", "samples_to_train_on", int(manifest.counts["samples"]), "", f"dis, {source}")


if __name__ == "__main__":
    main()

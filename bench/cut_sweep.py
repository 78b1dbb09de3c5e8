"""What looking for shot cuts costs: CPU time of one video without it, with the frames kept, and with a second decoding.

Comes in: a clip that decord reads. Goes out: rows of results.csv, ms of CPU per video of 16 passes, all three in turns in one process.

    python bench/cut_sweep.py --video CLIP
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import cv2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record
from pipeline.video import kept_frames
from pipeline.video.cut_rule import CutRule
from pipeline.video.decord_frames import DecordFrames
from pipeline.video.messages import DecodeRequest
from pipeline.video.rejects import check_file
from pipeline.video.windows import gather

PASSES = tuple(range(16))
OFFSETS = (-2, -1, 1, 2)


def decode_ms(video: Path, cuts: CutRule | None, most_kept_bytes: int) -> float:
    """CPU time of one video, opening included."""
    request = DecodeRequest("clip", str(video), "file", None, PASSES, 0, OFFSETS, 448, 224, False, cuts=cuts)
    kept_frames.KeptFrames.__init__.__defaults__ = (most_kept_bytes,)
    began = time.process_time()
    gather(DecordFrames(video, check_file(video)), request)
    return 1000 * (time.process_time() - began)


@click.command()
@click.option("--video", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--detector", type=click.Choice(["content", "adaptive"]), default="adaptive", show_default=True)
@click.option("--rounds", default=5, show_default=True, help="The least of so many.")
def main(video: Path, detector: str, rounds: int) -> None:
    cv2.setNumThreads(1)
    rule = CutRule(detector, 3.0 if detector == "adaptive" else 27.0)
    ways = {"none": (None, 0), "kept": (rule, kept_frames.MOST_KEPT_BYTES), "decoded_twice": (rule, 0)}
    used: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, (cuts, room) in ways.items():
            used[name].append(decode_ms(video, cuts, room))
    for name, every in used.items():
        record(
            "cut_sweep",
            f"cpu_per_video_{name}",
            min(every[1:]),
            "ms",
            f"{detector}, 16 passes, 448 and 224 px, one process, least of {rounds} rounds",
        )


if __name__ == "__main__":
    main()

"""How soon the next video is begun after one that hangs its decoder, or whose decoder dies by a signal: one decoding process at a time.

Comes in: a clip. Goes out: rows of results.csv, seconds from the moment the bad video is given up until the next one has been handed to a
fresh process, and until it is decoded.

    python bench/decoder_recovery.py --clip FILE
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record
from pipeline.extract.decoding import DecodeTask, DecodingPool
from pipeline.video.arena import Arena
from pipeline.video.datasets import Video
from pipeline.video.decoder import layout_of
from pipeline.video.messages import DecodeHeader, DecodeRefusal
from shards.schema import Settings


def hanging(folder: Path) -> Video:
    """A folder of frames that are pipes nobody writes to."""
    folder.mkdir()
    for number in range(5):
        os.mkfifo(folder / f"{number}.jpg")
    return Video("hanging", folder, "frames", 24.0)


def next_after(bad: Video, good: Video, deadline_s: float, number: signal.Signals | None) -> tuple[float, float]:
    """(s until the good video has a process, s until it is decoded) from the moment the bad one is given up. number: what its processes
    are ended by; None waits for the deadline."""
    settings, arena = Settings("folder", {}), Arena()
    size = layout_of(settings).size
    arena.grow(2 * size)
    pool, told = DecodingPool(arena, 1), dict[str, float]()

    def task(video: Video, place: int, deadline_s: float) -> DecodeTask:
        def tell(answer: DecodeHeader | DecodeRefusal) -> None:
            assert isinstance(answer, DecodeRefusal) == (video is bad), answer
            told[video.id] = time.monotonic()

        return DecodeTask(video, [0], settings, [place], deadline_s, tell)

    given = 0.0
    try:
        pool.submit(task(bad, 0, deadline_s))
        pool.submit(task(good, size, 60.0))
        while good.id not in told:
            for child in pool.children:
                if bad.id in told and child.videos and not given:
                    given = time.monotonic()
                if number is not None and bad.id not in told and child.videos:
                    os.kill(child.process.pid, number)
                pool.heard(child)
            pool.expire()
            time.sleep(0.002)
    finally:
        pool.close()
        arena.close()
    return (given or told[good.id]) - told[bad.id], told[good.id] - told[bad.id]


@click.command()
@click.option("--clip", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--deadline", "deadline_s", default=1.0, show_default=True, help="Of the video that hangs.")
def main(clip: Path, deadline_s: float) -> None:
    good = Video("good", clip, "file")
    with tempfile.TemporaryDirectory() as home:
        for name, number in (("hang", None), ("sigsegv", signal.SIGSEGV), ("sigkill", signal.SIGKILL)):
            bad = hanging(Path(home) / name)
            begun, decoded = next_after(bad, good, deadline_s if number is None else 60.0, number)
            record("decoder_recovery", f"next_begun_after_{name}", begun, "s", "one decoder; a fresh process included")
            record("decoder_recovery", f"next_decoded_after_{name}", decoded, "s", "one decoder")


if __name__ == "__main__":
    main()

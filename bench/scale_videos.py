"""Whether a video costs the same however many there are: CPU time of all processes per video, memory of the parent.

    python bench/scale_videos.py --videos 100 1000 10000 [--record]

One tiny synthetic clip under many names is extracted with DIS on small squares, so that what every video costs beside its flow is as
large a part as it can be. What a run of FEW videos costs is taken off: it is starting and ending.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil

from bench.made_up_set import LINKS
from bench.record import record
from pipeline.extract.local import LocalRunner
from pipeline.extract.run import ExtractionRequest, extract, stated
from pipeline.flow.estimator import EstimatorOptions, choose
from pipeline.synth import write_videos
from shards.schema import Settings

WORKERS = 1
"""With one of each, all processes are at work before the first video. Of two the second decoder and flow worker start meanwhile, and a
hundred tiny videos are over before they have: that came to 7 and to 11 ms per video in two runs."""
FEW = 20


@dataclass(frozen=True)
class Mark:
    """videos: how many have ended; cpu_s, parent_s: of all processes so far, and of this one; rss_bytes: of this one."""

    videos: int
    wall_s: float
    cpu_s: float
    parent_s: float
    rss_bytes: int


def mark(videos: int) -> Mark:
    """Now. Processes that have ended count with those that waited for them."""
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = psutil.Process()
    living = [child.cpu_times() for child in process.children(recursive=True)]
    mine = own.ru_utime + own.ru_stime
    others = ended.ru_utime + ended.ru_stime + sum(t.user + t.system for t in living)
    return Mark(videos, time.perf_counter(), mine + others, mine, process.memory_info().rss)


def write_clips(root: Path, clip: Path, count: int) -> None:
    for number in range(count):
        folder = root / f"{number // 1000:04d}"
        if number % LINKS == 0:
            source = root / f"{number:06d}.mp4"
            source.write_bytes(clip.read_bytes())
            continue
        folder.mkdir(exist_ok=True)
        os.link(source, folder / f"{number:06d}.mp4")


def extracted(root: Path, out: Path, count: int) -> tuple[Mark, Mark]:
    """Before it, and after it with all its processes ended."""
    choice = choose("dis", EstimatorOptions(), image_size=64)
    settings = Settings("folder", stated(choice), image_size=64, flow_size=32)
    request = ExtractionRequest(root, out, settings, choice, passes=1)
    before = mark(0)
    manifest = extract(request, LocalRunner(WORKERS, choice), lambda event, tally: None, lambda plan, tally: None)
    assert manifest.counts["ok"] == count, manifest.counts
    return before, mark(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--record", action="store_true", help="append the figures to bench/results.csv")
    asked = parser.parse_args()
    base = 0.0
    with tempfile.TemporaryDirectory() as folder:
        write_videos(Path(folder) / "clip", 1, 0, frames=12, size=(64, 96))
        [clip] = (Path(folder) / "clip").rglob("*.mp4")
        start = [0.0, 0.0, 0.0]
        for count in (FEW, FEW, *asked.videos):  # the first warms what is cached, the second says what starting costs
            root = Path(folder) / f"videos-{count}"
            if not root.exists():
                root.mkdir()
                write_clips(root, clip, count)
            out = Path(folder) / "set"
            first, last = extracted(root, out, count)
            shutil.rmtree(out)
            spent = [last.cpu_s - first.cpu_s, last.parent_s - first.parent_s, last.wall_s - first.wall_s]
            if count == FEW:
                start = spent
                continue
            each, parent, wall = (
                1e3 * (whole - part) / (count - FEW) for whole, part in zip(spent, start, strict=True)
            )
            base = base or each
            note = f"x{each / base:.2f}; of it the parent {parent:.2f} ms; {wall:.1f} ms of wall clock; {WORKERS} workers; "
            note += f"parent holds {last.rss_bytes / 2**20:.0f} MiB at the end, {first.rss_bytes / 2**20:.0f} at the beginning"
            print(f"{count:6d} videos {each:8.2f} CPU-ms per video  {note}", flush=True)
            if asked.record:
                record("scale", f"cpu_per_video_of_{count}", each, "ms", note)


if __name__ == "__main__":
    main()

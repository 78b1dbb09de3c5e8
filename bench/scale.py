"""What a large set costs beside its flow: listing its videos, merging records, a chunk that lands, a rerun, opening, verifying.

    python bench/scale.py --videos 150000 --passes 16 [--record]      (scale_open.py: opening; scale_videos.py: time per video)

A tree of empty videos, and commit records of made-up samples (`made_up_set.py`), are written to a temporary folder; every measured step
then runs the product's own code in a process of its own, so that its peak of memory is its own. Rows go to bench/results.csv with --record.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.cost import Cost, cost_of
from bench.made_up_set import (
    CHUNK_VIDEOS,
    SETTINGS,
    plan_of,
    write_chunk,
    write_growing,
    write_kinetics,
    write_records,
    write_set,
)
from bench.record import record
from pipeline.extract.plan import ChunkPlan
from pipeline.extract.run import ExtractionRequest, extract, stated
from pipeline.extract.runner import ChunkJob, Event
from pipeline.flow.estimator import EstimatorOptions, choose
from shards import schema
from shards.finalize import finalize
from shards.reader import ShardSet
from shards.schema import Manifest, ShardInfo
from shards.verify import verify

PAUSE_S = 0.001
"""Between two looks of what stands for the parent's event loop."""


class _Arrived(Exception):
    """Jobs have reached the runner: listing, planning and resuming are over."""


class _NoRunner:
    """Takes jobs and makes none."""

    def __enter__(self) -> _NoRunner:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        pass

    def prepare(self, jobs: int) -> None:
        pass

    def run(self, jobs: Sequence[ChunkJob], on_event: Callable[[Event], None]) -> None:
        raise _Arrived


def to_jobs(request: ExtractionRequest) -> None:
    """From the command to the jobs of the runner."""

    def planned(plan: ChunkPlan, tally: object) -> None:
        raise _Arrived

    try:
        extract(request, _NoRunner(), lambda event, tally: None, planned)
    except _Arrived:
        return
    raise AssertionError("nothing was left to do")


def requests(home: Path, videos: int) -> dict[str, ExtractionRequest]:
    """The same videos as a folder, a list file and a CSV of Kinetics."""
    root = home / "tree"
    table, listed = write_kinetics(root, videos)
    choice = choose("dis", EstimatorOptions())
    return {
        name: ExtractionRequest(
            root, home / name, replace(SETTINGS, dataset=name, estimator=stated(choice)), choice, list_file, passes=16
        )
        for name, list_file in (("folder", None), ("kinetics", table), ("list", listed))
    }


def land(request: ExtractionRequest) -> None:
    """Files of records and shards, empty, for all but a hundredth of the chunks, and a manifest that says so."""
    plan = request.plan()
    chunks = range(plan.chunks - plan.chunks // 100)
    infos = []
    for pass_index in range(request.passes):
        for path_of in (schema.record_path, schema.shard_path):
            (request.out / path_of(0, pass_index)).parent.mkdir(parents=True)
            for chunk in chunks:
                (request.out / path_of(chunk, pass_index)).touch()
        infos += [ShardInfo(schema.shard_path(chunk, pass_index), 0, 0, "") for chunk in chunks]
    manifest = Manifest(plan.settings, False, plan.passes, plan.chunks, {}, infos)
    (request.out / schema.MANIFEST).write_bytes(manifest.to_bytes())


def longest_pause(step: Callable[[], object]) -> float:
    """Seconds that the main thread was held up at most while a step ran in another, as the parent's event loop is."""
    with ThreadPoolExecutor(1) as pool:
        longest, last = 0.0, time.perf_counter()
        at_work = pool.submit(step)
        while not at_work.done():
            time.sleep(PAUSE_S)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        at_work.result()
    return longest


def merge_records(root: Path, plan: ChunkPlan) -> None:
    finalize(root, SETTINGS, plan.chunks, plan.passes, (v.row() for v in plan.videos))


def another_chunk(root: Path, plan: ChunkPlan, videos: int) -> float:
    """CPU seconds of taking a chunk into a manifest that this process has written, as a run does but for its first; a pass of the last
    chunk stays missing."""
    passes, last = range(plan.passes), plan.chunks - 1
    write_chunk(root, last, passes[: len(passes) // 2], videos)
    merge_records(root, plan)
    write_chunk(root, last, passes[len(passes) // 2 : -1], videos)
    began = time.process_time()
    merge_records(root, plan)
    return time.process_time() - began


def record_steps(root: Path, plan: ChunkPlan, videos: int) -> dict[str, Callable[[], object]]:
    """Name → step, in the order in which they must run. The last two chunks have not landed. merge_all_records reads every record,
    finalise_the_whole_set those of the last chunk: it takes all other rows from the index that is there."""
    passes, last = range(plan.passes), plan.chunks - 1

    def merge() -> None:
        merge_records(root, plan)

    def held_up() -> float:
        return longest_pause(merge)

    return {
        "merge_all_records": held_up,
        "commit_a_chunk": lambda: write_chunk(root, last - 1, passes, videos),
        "finalise_a_chunk": held_up,
        "commit_the_last_chunk": lambda: write_chunk(root, last, passes, videos),
        "finalise_the_whole_set": held_up,
        "finalise_nothing_new": merge,
    }


def record_bytes(root: Path) -> tuple[int, int]:
    """Of the records of all shards, and of what became of the videos, which is kept once per chunk."""
    records = root / "records"
    shards, videos = records.glob("pass-*/*.parquet"), records.glob("videos/*.json")
    return sum(path.stat().st_size for path in shards), sum(path.stat().st_size for path in videos)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=150_000)
    parser.add_argument("--passes", type=int, default=16)
    parser.add_argument("--only", choices=("listing", "landing", "records", "reading"))
    parser.add_argument("--record", action="store_true", help="append the figures to bench/results.csv")
    asked = parser.parse_args()

    def say(name: str, size: str, cost: Cost) -> None:
        pause = f"; main thread held up {cost.found:.3f} s at most" if cost.found else ""
        note = f"{size}; {cost.note()}{pause}"
        print(f"{name:28s} {cost.cpu_s:8.2f} CPU-s  {note}", flush=True)
        if asked.record:
            record("scale", f"{name}_cpu_s", cost.cpu_s, "s", note)

    with tempfile.TemporaryDirectory() as folder:
        if asked.only in (None, "listing"):
            for name, request in requests(Path(folder), asked.videos).items():
                listed = f"{asked.videos} videos"
                say(f"list_and_plan_{name}", listed, cost_of(partial(to_jobs, request)))
                cost_of(partial(land, request))
                say(f"list_plan_resume_{name}", f"{listed}, 99 % landed", cost_of(partial(to_jobs, request)))
        chunks = -(-asked.videos // CHUNK_VIDEOS)
        size = f"{asked.videos} videos x {asked.passes} passes, {chunks * asked.passes} shards"
        if asked.only in (None, "landing"):
            root = Path(folder) / "growing"
            cost_of(lambda: write_growing(root, asked.videos, asked.passes))
            plan = plan_of(root, asked.videos, asked.passes)
            landing = record_steps(root, plan, asked.videos)
            for name in ("commit_a_chunk", "finalise_a_chunk", "finalise_nothing_new"):
                say(name, size, cost_of(landing[name]))
            found = cost_of(partial(another_chunk, root, plan, asked.videos))
            later = replace(found, cpu_s=found.found, found=0.0)
            say("finalise_another_chunk", f"{size}, by the process that wrote the manifest; with all before", later)
        if asked.only in (None, "records"):
            root = Path(folder) / "set"
            say("write_records", size, cost_of(lambda: write_records(root, asked.videos, asked.passes, 2)))
            of_shards, of_videos = record_bytes(root)
            print(f"{of_shards / 2**20:.0f} MiB of records, {of_videos / 2**20:.0f} MiB of notes on videos", flush=True)
            if asked.record:
                note = f"{size}; records of shards {of_shards / 2**20:.0f} MiB; repeated in every pass: x{asked.passes}"
                record("scale", "notes_on_videos_mib", of_videos / 2**20, "MiB", note)
            for name, timed in record_steps(root, plan_of(root, asked.videos, asked.passes), asked.videos).items():
                say(name, size, cost_of(timed))
        if asked.only in (None, "reading"):
            root = Path(folder) / "whole"
            cost_of(lambda: write_set(root, asked.videos, asked.passes))
            say("open_set", size, cost_of(lambda: ShardSet(root)))
            say("verify_but_hashing", size, cost_of(lambda: _intact(root)))


def _intact(root: Path) -> None:
    problems = verify(root)
    assert problems == [], problems[:3]


if __name__ == "__main__":
    main()

"""What a large set costs beside its flow: merging records, looking at a set that has not changed, opening it, planning on top of it.

    python bench/scale.py --videos 25600 --passes 8 [--record]

Commit records of made-up samples and sparse files in the place of shards are written to a temporary folder; every measured step then
runs the product's own code in a process of its own, so that its peak of memory is its own. Rows go to bench/results.csv with --record.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyarrow as pa
import pyarrow.parquet as pq

from bench.record import record
from pipeline.extract.plan import ChunkPlan, PlannedVideo, make_plan, save_plan
from pipeline.video.datasets import Video
from shards import schema
from shards.finalize import finalize
from shards.reader import ShardSet
from shards.records import write_videos
from shards.schema import Settings, ShardInfo

SETTINGS = Settings("folder", {"name": "none"}, chunk_videos=256)
SHARD_BYTES = 1 << 26


@dataclass(frozen=True)
class Cost:
    """Of one step in a process of its own. grown_bytes: peak of memory above what the process had before."""

    wall_s: float
    cpu_s: float
    grown_bytes: int


def name_of(video: int) -> str:
    return f"class-{video % 400:03d}/{video:011d}_000001_000011"


def rows_of(chunk: int, pass_index: int, videos: range) -> pa.Table:
    """What a record of DIS flow holds. Statistics differ from row to row, and repeat from record to record."""
    table = _template().slice(0, len(videos))
    named = {
        "key": [schema.sample_key(chunk, pass_index, position) for position in range(len(videos))],
        "pass": [pass_index] * len(videos),
        "shard": [schema.shard_path(chunk, pass_index)] * len(videos),
        "video": [name_of(video) for video in videos],
    }
    for name, values in named.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    return table


@cache
def _template() -> pa.Table:
    chunk, pass_index, videos = 0, 0, range(256)
    four = range(len(SETTINGS.offsets))
    rows = []
    for position, video in enumerate(videos):
        at = position * 100_000
        columns = {name: [(video * 7 + k) % 997 / 100 for k in four] for name in ("mean_dx_px", "mean_dy_px", "max_px")}
        row = {"key": schema.sample_key(chunk, pass_index, position), "pass": pass_index, "video": name_of(video)}
        row |= {"shard": schema.shard_path(chunk, pass_index), "frame": video % 290, "time_s": video % 290 / 29.97}
        row |= {
            "std_dx_px": [0.5] * 4,
            "std_dy_px": [0.25] * 4,
            "confidence": [None] * 4,
            "optional_members": [],
            **columns,
        }
        row |= {
            "neighbour_frame": [video % 290 + k for k in four],
            "neighbour_time_s": [video % 290 + k / 10 for k in four],
        }
        row |= {"status": [schema.STORED] * 4, "quantum_exponent": [-5] * 4}
        row |= {"flow_offset": [at + 20_000 * k for k in four], "flow_size": [19_000 + video % 999] * 4}
        row |= {"flow_crc32": [(video * 2654435761 + k) % 2**32 for k in four]}
        for member, size in (("image", 15_000), ("json", 900)):
            row |= {f"{member}_offset": at, f"{member}_size": size, f"{member}_crc32": video * 40503 % 2**32}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=schema.index_schema(len(SETTINGS.offsets)))


def write_records(root: Path, videos: int, passes: int) -> ChunkPlan:
    """A set as a run leaves it that was killed before its first manifest."""
    places = [
        PlannedVideo(
            Video(name_of(v), root / "videos" / f"{name_of(v)}.mp4", "file"), f"{name_of(v)}.mp4", v // 256, v % 256
        )
        for v in range(videos)
    ]
    plan = ChunkPlan(SETTINGS, passes, tuple(places), frozenset(v.video.id for v in places))
    save_plan(root, plan)
    facts = {
        "status": "ok",
        "reason": "",
        "detail": "",
        "frames": 300,
        "fps": 29.97,
        "width": 340,
        "height": 256,
        "engine": "decord",
    }
    for chunk in range(plan.chunks):
        members = range(chunk * 256, min(videos, (chunk + 1) * 256))
        write_videos(root, chunk, [{"video": name_of(v), **facts} for v in members])
        for pass_index in range(passes):
            shard, entry = root / schema.shard_path(chunk, pass_index), root / schema.record_path(chunk, pass_index)
            shard.parent.mkdir(exist_ok=True)
            entry.parent.mkdir(exist_ok=True)
            shard.touch()
            os.truncate(shard, SHARD_BYTES)
            info = ShardInfo(schema.shard_path(chunk, pass_index), len(members), SHARD_BYTES, "0" * 64)
            note = {"flowfeat": json.dumps({"shard": info.__dict__})}
            pq.write_table(rows_of(chunk, pass_index, members).replace_schema_metadata(note), entry)
    return plan


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cost_of(step: Callable[[], object]) -> Cost:
    """Run a step in a forked child."""
    mine, theirs = get_context("fork").Pipe()

    def child(answer: Connection) -> None:
        before, wall, cpu = _peak_bytes(), time.perf_counter(), time.process_time()
        held = step()
        answer.send(Cost(time.perf_counter() - wall, time.process_time() - cpu, _peak_bytes() - before))
        del held

    process = get_context("fork").Process(target=child, args=(theirs,))
    process.start()
    theirs.close()
    found = mine.recv()
    process.join()
    assert isinstance(found, Cost)
    return found


def steps_of(root: Path, plan: ChunkPlan) -> dict[str, Callable[[], object]]:
    """Name → step, in the order in which they must run."""
    rows = [v.row() for v in plan.videos]
    listing = [v.video for v in plan.videos]
    return {
        "finalise_all_records": lambda: finalize(root, SETTINGS, plan.chunks, plan.passes, rows),
        "finalise_nothing_new": lambda: finalize(root, SETTINGS, plan.chunks, plan.passes, rows),
        "open_set": lambda: ShardSet(root),
        "plan_continued": lambda: make_plan(root, listing, root / "videos", SETTINGS, plan.passes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=25_600)
    parser.add_argument("--passes", type=int, default=8)
    parser.add_argument("--record", action="store_true", help="append the figures to bench/results.csv")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        plan = write_records(root, asked.videos, asked.passes)
        samples = asked.videos * asked.passes
        size = f"{asked.videos} videos x {asked.passes} passes, {plan.chunks * asked.passes} records"
        for name, step in steps_of(root, plan).items():
            cost = cost_of(step)
            memory = f"peak +{cost.grown_bytes / 2**20:.0f} MiB, {cost.grown_bytes / samples:.0f} B per sample"
            each = f"{size}; {cost.wall_s:.2f} s wall; {memory}"
            print(f"{name:24s} {cost.cpu_s:8.2f} CPU-s  {each}", flush=True)
            if asked.record:
                record("scale", f"{name}_cpu_s", cost.cpu_s, "s", each)


if __name__ == "__main__":
    main()

"""What opening a large set costs, and what it is for the loader's workers: seconds, memory, memory of all processes together.

    python bench/scale_open.py --videos 625000 --passes 16 [--workers 12] [--record]

A made-up set (`made_up_set.py`) is opened as a training opens it, the order over its samples is made, and workers are forked that look up
what a worker looks up. No sample is read: there is none.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from bench.cost import Cost, cost_of, shared_bytes
from bench.made_up_set import write_set
from bench.record import record
from shards.reader import ShardSet
from trainer.order import SampleOrder

LOOKUPS = 20_000


def opened(root: Path) -> None:
    ShardSet(root)


def with_workers(root: Path, workers: int) -> float:
    """Bytes of this process and its workers together, when each has looked up LOOKUPS samples."""
    data = ShardSet(root)
    order = SampleOrder(data.trainable_mask, seed=0)
    pipes: list[Connection] = []
    children = []
    for number in range(workers):
        ours, theirs = get_context("fork").Pipe()
        children.append(get_context("fork").Process(target=_work, args=(theirs, data, order, number)))
        children[-1].start()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()
    total = shared_bytes([os.getpid(), *(child.pid for child in children if child.pid)])
    for pipe in pipes:
        pipe.send("end")
    for child in children:
        child.join()
    return float(total)


def _work(pipe: Connection, data: ShardSet, order: SampleOrder, number: int) -> None:
    for sample in order.visits(np.arange(LOOKUPS) * 64 + number).sample.tolist():
        assert data.members(sample) and data.shard_of(sample)
    pipe.send("done")
    pipe.recv()


def verified(root: Path) -> float:
    """Seconds per shard of the rows' share of a deep verification: finding each shard's rows."""
    data = ShardSet(root)
    found = data.rows_by_shard()
    assert sum(len(rows) for rows in found.values()) == len(data)
    return float(len(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=625_000)
    parser.add_argument("--passes", type=int, default=16)
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--record", action="store_true", help="append the figures to bench/results.csv")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        made = cost_of(lambda: write_set(root, asked.videos, asked.passes))
        samples = int(made.found)
        size = f"{samples} samples, index of {(root / 'index.parquet').stat().st_size / 2**20:.0f} MiB"

        def say(name: str, cost: Cost, value: float, unit: str) -> None:
            note = f"{size}; {cost.cpu_s:.2f} CPU-s; {cost.note()}"
            print(f"{name:32s} {value:10.3f} {unit:6s} {note}", flush=True)
            if asked.record:
                record("scale", name, value, unit, note)

        cost = cost_of(lambda: opened(root))
        say("open_set_cpu_s", cost, cost.cpu_s, "s")
        say("open_set_bytes_per_sample", cost, cost.grown_bytes / samples, "B")
        cost = cost_of(lambda: with_workers(root, asked.workers))
        say(f"parent_and_{asked.workers}_workers", cost, cost.found / 2**20, "MiB")
        cost = cost_of(lambda: verified(root))
        say("rows_by_shard_cpu_s", cost, cost.cpu_s, "s")


if __name__ == "__main__":
    main()

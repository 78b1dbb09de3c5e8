"""Samples per second out of a shard set, without training: our loader against webdataset's own decoding of the same tars.

    python bench/loader.py --shards DIR

Both deliver a 448 RGB picture and one 224 flow per sample in batches of 32, with the same number of worker processes, one after
the other in this process. webdataset decodes with its defaults (`rgb8`, PIL) plus our flow decoder, and is collated by its WebLoader.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import webdataset as wds

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record
from shards.codec import decode_flow
from shards.reader import ShardSet
from trainer.batch import Plan
from trainer.loader import Loader
from trainer.order import SampleOrder

BATCH = 32


def ours(data: ShardSet, workers: int, batches: int) -> float:
    settings = data.manifest.settings
    plan = Plan(SampleOrder(data.trainable_mask, seed=0), BATCH, settings.image_size, settings.flow_size)
    with Loader(data, plan, workers=workers, prefetch_batches=4) as loader:
        return _rate(loader.batches(), batches)


def webdataset(root: Path, workers: int, batches: int) -> float:
    urls = [str(p) for p in sorted(root.glob("pass-*/*.tar"))]

    def pick(sample: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, float]:
        name = next(n for n in ("p1.flow", "m1.flow", "p2.flow", "m2.flow") if n in sample)
        flow = decode_flow(sample[name])
        return sample["jpg"], flow.values_chw, flow.quantum_px

    source = wds.WebDataset(urls, shardshuffle=100, seed=0, empty_check=False).decode("rgb8").map(pick).repeat()
    source = source.batched(BATCH, partial=False)
    loader = wds.WebLoader(source, batch_size=None, num_workers=workers)
    return _rate(iter(loader), batches)


def _rate(batches: Any, count: int) -> float:
    for _ in range(3):
        next(batches)
    began = time.perf_counter()
    for _ in range(count):
        next(batches)
    return count * BATCH / (time.perf_counter() - began)


@click.command()
@click.option("--shards", "root", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--batches", default=30, show_default=True)
def main(root: Path, batches: int) -> None:
    torch.set_num_threads(1)
    data = ShardSet(root)
    for workers in (1, 2):
        mine, theirs = ours(data, workers, batches), webdataset(root, workers, batches)
        note = f"batch {BATCH}, {workers} workers, int16 flow and uint8 448 picture"
        record("loader", f"flowfeat_samples_per_s_w{workers}", mine, "1/s", note)
        record("loader", f"webdataset_samples_per_s_w{workers}", theirs, "1/s", note)
        record("loader", f"flowfeat_over_webdataset_w{workers}", mine / theirs, "x", note)


if __name__ == "__main__":
    main()

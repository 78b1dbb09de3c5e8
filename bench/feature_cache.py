"""What the feature cache of the probes saves: features of a source made by its network, and read back.

A model file (or none: DINO ViT-S/16 of random weights) → pictures/s of `features_of` without a cache, filling one, and reading it;
the three in turn, several rounds, the best of each: ratios come from one run. The directory's disk is what reading is measured on, its
pages warm in memory: a lower bound for a cold disk.

    python bench/feature_cache.py [--model FILE] [--side 224] [--rounds 3] [--record]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record
from probes.sources.feature_cache import FeatureCache, with_cache
from probes.sources.features import Source, features_of
from probes.sources.flowfeat import Checkpoint, FlowFeatEncoder, open_checkpoint
from probes.sources.table import create_sources
from trainer import FlowFeat

CPU = torch.device("cpu")
PICTURES = 4


def checkpoint_of(path: Path | None) -> Checkpoint:
    if path is not None:
        return open_checkpoint(path, device=CPU)
    model = FlowFeat.create("dino_vits16", init="random").eval()
    return Checkpoint(FlowFeatEncoder(model), Path("random"), "0" * 64, teacher=False, seed=0)


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    size = (PICTURES, arguments.side, arguments.side, 3)
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)

    def through(sources: list[Source]) -> Callable[[], None]:
        def run() -> None:
            for image in images.split(1):
                for _ in features_of(sources, image):
                    pass

        return run

    with torch.no_grad():
        checkpoint = checkpoint_of(arguments.model)
        (plain,) = create_sources(["flowfeat"], checkpoint)
        rates: dict[str, float] = {}
        for _ in range(arguments.rounds):
            with tempfile.TemporaryDirectory() as folder:
                kept = with_cache([plain], FeatureCache(Path(folder), 10**11))
                steps = {"network": through([plain]), "filling": through(kept), "reading": through(kept)}
                for name, run in steps.items():
                    rates[name] = max(rates.get(name, 0.0), PICTURES / seconds(run))
    note = f"{arguments.side} px, {checkpoint.model.variant}, 1 thread, best of {arguments.rounds}"
    figures = [(f"{name}_pictures_per_s", rate, "1/s") for name, rate in rates.items()]
    figures.append(("reading_over_network", rates["reading"] / rates["network"], "x"))
    for figure, value, unit in figures:
        if arguments.record:
            record("feature_cache", figure, value, unit, note)
        else:
            print(f"{figure:32s} {value:10.3g} {unit}  {note}")


if __name__ == "__main__":
    main()

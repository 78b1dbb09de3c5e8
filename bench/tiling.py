"""Features of large pictures, plain and in tiles: peak memory of the process against the stated figure, time, and the difference.

python bench/tiling.py --picture FILE [--model FILE] [--record]

Every case runs in a process of its own, whose peak resident memory is compared with that before the call; "stated" is
`trainer.tiling.extraction_bytes`. The difference to the plain call is the root mean square over that of the plain map.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.record import record
from trainer import FlowFeat
from trainer.tiling import choose_tiles, extraction_bytes

MIB = 2**20
CASES: tuple[tuple[int, int, int | None], ...] = (
    (1024, 2048, None),
    (1024, 2048, 448),
    (1024, 2048, 896),
    (2160, 3840, 448),
    (2160, 3840, 896),
)
"""Height, width (both are cut to the model's multiples) and tile; None is the plain call."""


def opened(variant: str, model_file: str | None) -> FlowFeat:
    return (FlowFeat.from_pretrained(model_file) if model_file else FlowFeat.create(variant, init="random")).eval()


def pixels(picture: str, height: int, width: int) -> Tensor:
    """The picture at that size, normalised [1, 3, h, w]."""
    image = Image.open(picture).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    return FlowFeat.normalise(torch.from_numpy(np.array(image))[None])


def measure(variant: str, model_file: str | None, picture: str, height: int, width: int, tile: int | None) -> None:
    """In the child: one extraction; its figures go to standard output."""
    model = opened(variant, model_file)
    step = model.size_multiple
    model.extract(torch.zeros(1, 3, 4 * step, 4 * step), normalised=True)  # what is loaded and kept at the first call
    images = pixels(picture, height // step * step, width // step * step)
    before = resident_bytes()
    began = time.perf_counter()
    found = model.extract(images, tile=tile, normalised=True)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    shape = (1, int(images.shape[-2]), int(images.shape[-1]))
    tiles = choose_tiles(model, shape, tile=tile, overlap=None, memory=None, resized=False)
    facts = {
        "height": shape[1],
        "width": shape[2],
        "peak": peak - before,
        "seconds": seconds,
        "stated": extraction_bytes(model, shape, tiles),
    }
    assert found.high.isfinite().all()
    print(json.dumps(facts))


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def differences(model: FlowFeat, picture: str, side: int) -> list[tuple[str, float]]:
    """Of the dense map at side x 2 side, for tiles of a half and three overlaps."""
    step = model.size_multiple
    images = pixels(picture, side // step * step, 2 * side // step * step)
    plain = model.extract(images, normalised=True).high
    scale, tile = plain.square().mean().sqrt(), side // 2 // step * step
    found = []
    for share in (0.0, 0.25, 0.5):
        overlap = int(share * tile) // step * step
        tiled = model.extract(images, normalised=True, tile=tile, overlap=overlap).high
        found.append((f"tile {tile} overlap {overlap}", float((tiled - plain).square().mean().sqrt() / scale)))
    return found


@click.command()
@click.option("--picture", type=click.Path(exists=True), required=True, help="Any picture; it is resized.")
@click.option("--variant", default="dinov2_vits14", show_default=True, help="Encoder, with random weights.")
@click.option("--model", "model_file", type=click.Path(exists=True), help="A model file instead.")
@click.option(
    "--side", default=448, show_default=True, help="Height at which the difference is measured; 0: not at all."
)
@click.option("--memory/--no-memory", default=True, help="Whether peak memory is measured.")
@click.option("--record", "keep", is_flag=True, help="Append to results.csv.")
@click.option("--case", hidden=True, help="For the child.")
def main(
    picture: str, variant: str, model_file: str | None, side: int, memory: bool, keep: bool, case: str | None
) -> None:
    if case is not None:
        height, width, tile = json.loads(case)
        measure(variant, model_file, picture, height, width, tile)
        return
    name = Path(model_file).stem if model_file else f"{variant}, random weights"

    def tell(figure: str, value: float, unit: str) -> None:
        if keep:
            record("tiling", figure, value, unit, name)
        else:
            print(f"{figure:44s} {value:12.5g} {unit:10s} {name}", flush=True)

    for height, width, tile in CASES if memory else ():
        command: list[Any] = [sys.executable, "-m", "bench.tiling", "--picture", picture, "--variant", variant]
        command += ["--model", model_file] if model_file else []
        done = subprocess.run(
            [*command, "--case", json.dumps([height, width, tile])], capture_output=True, text=True, check=True
        )
        facts = json.loads(done.stdout)
        what = f"{facts['height']}x{facts['width']} {f'tile {tile}' if tile else 'plain'}"
        tell(f"{what}: peak", facts["peak"] / MIB, "MiB")
        tell(f"{what}: stated", facts["stated"] / MIB, "MiB")
        tell(f"{what}: time", facts["seconds"], "s")
    if side:
        for what, value in differences(opened(variant, model_file), picture, side):
            tell(f"{what}: rms difference", 100 * value, "%")


if __name__ == "__main__":
    main()

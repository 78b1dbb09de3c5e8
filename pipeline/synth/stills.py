"""Single pictures with classes, and pictures in relief with depth: what segmentation and depth probes learn from.

Each picture is a scene of its own, drawn from seeds that neither training videos nor DAVIS sequences use (`TRAIN`, `TEST`), with the
same classes of objects. Written like videos: atomically, complete ones are skipped, equal arguments give equal bytes.

    OUT/segmentation/{train,val}/00000.jpg              the picture
    OUT/segmentation/{train,val}annot/00000.png         8 bit, 0 background, 1..6 the class of the object
    OUT/segmentation/classes.txt                        names by number
    OUT/depth/{train,test}/rgb/00000.jpg                the same scene in relief (`relief`)
    OUT/depth/{train,test}/depth/00000.png              16 bit, depth = value / DEPTH_SCALE
    OUT/depth/camera-intrinsics.txt                     3x3, pixels
    OUT/segmentation/synthetic.json                     the arguments that shape content
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.synth.compose import CLASSES, Style
from pipeline.synth.relief import intrinsics, relief_of
from pipeline.synth.render import Renderer
from pipeline.synth.scene import Scene
from pipeline.synth.write import (
    HELD_OUT,
    check_arguments,
    claim,
    depth_bytes,
    in_parallel,
    is_written,
    jpeg_bytes,
    json_bytes,
)
from shards.files import write_atomic

TRAIN, TEST = 2 * HELD_OUT, 3 * HELD_OUT  # added to the seed
TEST_SHARE = 1 / 3
BACKGROUND = "background"


def class_map(scene: Scene, t: int) -> NDArray[np.uint8]:
    """[H, W]: 0 background, 1..6 the number of the object's class in `CLASSES`, counted from 1."""
    numbers = {kind.name: number for number, kind in enumerate(CLASSES, start=1)}
    of_label = np.zeros(len(scene.surfaces) + 1, np.uint8)
    for surface in scene.surfaces:
        if surface.is_object:
            of_label[surface.label] = numbers[surface.kind]
    return of_label[scene.mask(t)]


def _class_bytes(classes_hw: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(classes_hw).save(buffer, "PNG")
    return buffer.getvalue()


def _write_still(out: Path, scene: Scene, parts: tuple[str, str]) -> str:
    """parts: the split's name among segmentation folders and among depth folders."""
    name, (segmentation, depth) = f"{scene.index:05d}", parts
    record_path = out / "segmentation" / f"{segmentation}annot" / f".{name}.scene.json"
    places = (
        out / "segmentation" / segmentation / f"{name}.jpg",
        out / "segmentation" / f"{segmentation}annot" / f"{name}.png",
        out / "depth" / depth / "rgb" / f"{name}.jpg",
        out / "depth" / depth / "depth" / f"{name}.png",
    )
    if is_written(record_path, scene.record()) and all(path.is_file() for path in places):
        return name
    renderer = Renderer(scene)
    relief = relief_of(scene, renderer, 0)
    of_frame = jpeg_bytes(renderer.frame(0)), _class_bytes(class_map(scene, 0))
    contents = (*of_frame, jpeg_bytes(relief.picture), depth_bytes(relief.depth))
    for path, content in zip(places, contents, strict=True):
        write_atomic(path, content)
    write_atomic(record_path, json_bytes(scene.record()))
    return name


def write_stills(
    out: Path,
    count: int,
    seed: int,
    *,
    size: tuple[int, int] = (240, 320),
    style: Style | None = None,
    workers: int | None = None,
    done: Callable[[str], None] = lambda name: None,
) -> None:
    """`count` pictures, a third of them to test on, into out/segmentation and out/depth. size: (height, width), both even.

    Raises
    ------
    ValueError: fewer than two pictures, arguments out of range, or pictures made with other arguments in `out`. OSError: a
    file cannot be written.
    """
    if count < 2:
        raise ValueError(f"stills={count}: ask for at least two, one to learn from and one to test on")
    check_arguments(seed, 1, size)
    test = max(1, round(TEST_SHARE * count))
    plan = [(TRAIN, index, ("train", "train")) for index in range(count - test)]
    plan += [(TEST, index, ("val", "test")) for index in range(test)]
    first = Scene.create(seed + TRAIN, 0, size=size, frames=1, style=style)
    claim(out / "segmentation", {**first.record(), "seed": seed})

    def job(number: int) -> str:
        offset, index, parts = plan[number]
        return _write_still(out, Scene.create(seed + offset, index, size=size, frames=1, style=style), parts)

    in_parallel(job, len(plan), workers or min(os.cpu_count() or 1, 8), done)
    names = [BACKGROUND, *(kind.name for kind in CLASSES)]
    write_atomic(out / "segmentation" / "classes.txt", "".join(f"{name}\n" for name in names))
    matrix = "".join(" ".join(f"{value:.6f}" for value in row) + "\n" for row in intrinsics(first))
    write_atomic(out / "depth" / "camera-intrinsics.txt", matrix)

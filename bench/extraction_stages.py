"""Where the CPU time of an extraction goes: every stage by itself, one after the other in one process, on a folder of clips.

Comes in: clips that decord reads. Goes out: rows of results.csv, ms of CPU per pair and stage with `dis`. What processes say to each
other and the parent's bookkeeping are not in it: `extraction.py --against` has the whole command.

    python bench/extraction_stages.py --videos DIR
"""

from __future__ import annotations

import hashlib
import pickle
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record
from common.freed_memory import OF_A_VIDEO, keep_freed_memory
from pipeline.extract.encode import encode_image, encode_pair
from pipeline.flow.estimator import EstimatorOptions, choose
from pipeline.video.arena import Arena, write_at
from pipeline.video.datasets import list_videos
from pipeline.video.decord_frames import DecordFrames
from pipeline.video.geometry import centre_square, shrink_square
from pipeline.video.rejects import check_file
from pipeline.video.sampling import draw_anchor, valid_anchors
from pipeline.window import Window

OFFSETS = (-2, -1, 1, 2)


@contextmanager
def stage(used: dict[str, float], name: str) -> Iterator[None]:
    began = time.process_time()
    yield
    used[name] += time.process_time() - began


def resized(
    used: dict[str, float], source: DecordFrames, needed: Sequence[int], with_image: Set[int]
) -> tuple[dict[int, NDArray[np.uint8]], dict[int, NDArray[np.uint8]]]:
    """(images, flow squares) by frame, made in the order of the decoding process: the image of a neighbour is let go.

    decord decodes in a thread of its own meanwhile, so its share is what the whole takes beside this thread's resizing.
    """
    images, squares = {}, {}
    began, resizing_s = time.process_time(), 0.0
    for index, frame_hwc in source.fetch(needed):
        marks = [time.thread_time()]
        image_hwc = centre_square(frame_hwc, 448)
        marks.append(time.thread_time())
        squares[index] = shrink_square(image_hwc, 224)
        marks.append(time.thread_time())
        if index in with_image:
            images[index] = image_hwc
        used["enlarge"] += marks[1] - marks[0]
        used["halve"] += marks[2] - marks[1]
        resizing_s += marks[2] - marks[0]
    used["decode"] += time.process_time() - began - resizing_s
    return images, squares


@click.command()
@click.option("--videos", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--passes", default=16, show_default=True)
@click.option("--rounds", default=3, show_default=True, help="The least of so many, the first one left out.")
def main(videos: Path, passes: int, rounds: int) -> None:
    keep_freed_memory(OF_A_VIDEO)  # as decoders and workers do
    estimator, arena, found = choose("dis", EstimatorOptions(None, "cpu", "fp32")).build(), Arena(), []
    clips = list_videos("folder", videos)
    for _ in range(rounds + 1):
        used: dict[str, float] = defaultdict(float)
        for clip in clips:
            with stage(used, "open"):
                source = DecordFrames(clip.path, check_file(clip.path))
                anchors, neighbours = valid_anchors(source.times_s, OFFSETS)
                drawn = [draw_anchor(0, clip.id, number, len(anchors)) for number in range(passes)]
                needed = sorted({*anchors[drawn].tolist(), *neighbours[drawn].ravel().tolist()})
            images, squares = resized(used, source, needed, set(anchors[drawn].tolist()))
            with stage(used, "to_arena"):
                place = 0
                arena.grow(passes * (448 * 448 * 3 + 5 * 224 * 224 * 3))
                for d in drawn:
                    arrays = [
                        images[int(anchors[d])],
                        squares[int(anchors[d])],
                        *(squares[n] for n in neighbours[d].tolist()),
                    ]
                    place = write_at(arena.descriptor, place, arrays)
            windows = [
                Window(
                    clip.id, clip.path, OFFSETS, int(anchors[d]), tuple(neighbours[d].tolist()), 0.0, (0.0,) * 4,
                    squares[int(anchors[d])], np.stack([squares[n] for n in neighbours[d].tolist()]),
                )
                for d in drawn
            ]  # fmt: skip
            with stage(used, "flow"):
                flows = estimator.estimate(windows)
            with stage(used, "jpeg"):
                jpegs = [encode_image(images[window.anchor_index], 90) for window in windows]
            with stage(used, "flow_members"):
                members = [encode_pair(flow_chw, None, 0.1)[0] for flow in flows for flow_chw in flow.flow_kchw]
            with stage(used, "hand_over"):
                for data in pickle.loads(pickle.dumps([*jpegs, *members])):
                    hashlib.sha256(data or b"").digest()
                    zlib.crc32(data or b"")
        found.append(used)
    pairs = len(clips) * passes * len(OFFSETS)
    note = f"dis, {passes} passes, {len(clips)} clips, one process, least of {rounds} rounds"
    least = {name: 1e3 * min(used[name] for used in found[1:]) / pairs for name in found[0]}
    for name, value in least.items():
        record("extraction_stages", f"{name}_cpu_per_pair", value, "ms", note)
    record("extraction_stages", "beside_flow_cpu_per_pair", sum(least.values()) - least["flow"], "ms", note)


if __name__ == "__main__":
    main()

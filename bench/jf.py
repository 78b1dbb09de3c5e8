"""J and F of label maps: frames per second against a straightforward evaluation that dilates both boundaries by a disk.

    python bench/jf.py [--davis DIR] [--frames 40] [--record]

Pairs are the annotations of neighbouring frames of DAVIS sequences, or drawn ellipses at 480x854 without --davis. Both sides
get the same pairs, one after the other in one process on one thread; the scores must agree to 1e-12. The straightforward side
is the DAVIS benchmark's definition word for word: boundary map, dilation by the disk of the tolerance's radius (OpenCV's, as in
the benchmark's own tool), counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.record import record
from probes.data.davis import open_davis
from probes.metrics.davis import region_similarity, score_frame, tolerance_px

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Pair = tuple[Labels, Labels, int]
SIZE = 480, 854
REPEATS = 5


def disk(radius: int) -> Mask:
    down, across = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(down**2 + across**2 <= radius**2)


def boundary_map(mask: Mask) -> Mask:
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    edge[:-1, :] |= mask[:-1, :] ^ mask[1:, :]
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edge


def dilated(edge: Mask, element: Mask) -> Mask:
    return cv2.dilate(edge.astype(np.uint8), element.astype(np.uint8)).astype(bool)


def straightforward(pair: Pair) -> NDArray[np.float64]:
    """J and F [2, objects], as the benchmark defines them."""
    truth, predicted, objects = pair
    scores = np.empty((2, objects))
    element = disk(tolerance_px(*truth.shape))
    for column, label in enumerate(range(1, objects + 1)):
        one, other = truth == label, predicted == label
        scores[0, column] = region_similarity(one, other)
        edge, edge_other = boundary_map(one), boundary_map(other)
        near, near_other = dilated(edge, element), dilated(edge_other, element)
        if not edge.any() or not edge_other.any():
            scores[1, column] = float(edge.any() == edge_other.any())
            continue
        precision = np.count_nonzero(edge_other & near) / np.count_nonzero(edge_other)
        recall = np.count_nonzero(edge & near_other) / np.count_nonzero(edge)
        scores[1, column] = 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)
    return scores


def davis_pairs(root: Path, frames: int) -> list[Pair]:
    """Neighbouring annotations, evenly from every sequence."""
    sequences = open_davis(root)
    each = -(-frames // len(sequences))
    pairs = []
    for sequence in sequences:
        for index in np.linspace(0, len(sequence) - 2, min(each, len(sequence) - 1)).astype(int).tolist():
            pairs.append((sequence.labels(index), sequence.labels(index + 1), sequence.objects))
    return pairs[:frames]


def drawn_pairs(frames: int) -> list[Pair]:
    """An ellipse each that moves by a few pixels."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(frames):
        centre, axes = rng.integers((250, 150), (600, 330)), rng.integers(40, 140, 2)
        masks = []
        for shift in (0, 4):
            mask = np.zeros(SIZE, np.uint8)
            x, y = (int(value) + shift for value in centre)
            cv2.ellipse(mask, (x, y), (int(axes[0]), int(axes[1])), 30, 0, 360, (1,), -1)
            masks.append(mask)
        pairs.append((masks[0], masks[1], 1))
    return pairs


def timed(score: Callable[[Pair], NDArray[np.float64]], pairs: list[Pair]) -> tuple[list[NDArray[np.float64]], float]:
    """The scores, and frames per second of this thread's CPU time, the best of several times over each pair: what else the
    machine does then counts little."""
    scores, seconds = [], 0.0
    for pair in pairs:
        taken = []
        for _ in range(REPEATS):
            began = time.thread_time()
            one = score(pair)
            taken.append(time.thread_time() - began)
        scores.append(one)
        seconds += min(taken)
    return scores, len(pairs) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis", type=Path)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    pairs = drawn_pairs(arguments.frames) if arguments.davis is None else davis_pairs(arguments.davis, arguments.frames)
    height, width = pairs[0][0].shape
    ours, fast = timed(lambda pair: score_frame(*pair), pairs)
    note = f"{len(pairs)} label maps {width}x{height}, {sum(pair[2] for pair in pairs)} objects, one thread, CPU time, best of {REPEATS}"
    theirs, slow = timed(straightforward, pairs)
    worst = max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))
    if worst > 1e-12:
        raise SystemExit(f"Error: the scores differ by {worst} from those by dilation")
    figures = (
        ("frames_per_s", fast, "1/s", note),
        ("disk_dilation_frames_per_s", slow, "1/s", "the same maps, same scores"),
        ("times_faster", fast / slow, "x", "one run"),
    )
    for figure, value, unit, text in figures:
        if arguments.record:
            record("jf", figure, value, unit, text)
        else:
            print(f"{figure:40s} {value:10.4g} {unit:4s} {text}")


if __name__ == "__main__":
    main()

"""Flow codec beside fp16 .npy and KITTI's 16-bit PNG: bytes, error, speed. On real DIS flow of a DAVIS directory.

    python bench/codec.py --davis DIR     (JPEGImages/480p/<sequence>/*.jpg)

All coders run in this process, one thread, thread CPU time, in turn on the same flows; the best of several rounds
counts, so that ratios hold on a noisy machine. Error is what the training loss sees: rms of the difference of the flows,
each standardised per channel with the exact flow's mean and standard deviation.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click
import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record
from pipeline.flow.estimator import create
from pipeline.video.geometry import centre_square, shrink_square
from pipeline.window import Window
from shards.codec import channel_std_px, decode_flow, encode_flow
from shards.schema import NOISE_FLOOR_PX

Flow = NDArray[np.float32]
Item = TypeVar("Item")
OFFSETS = (-2, -1, 1, 2)
ROUNDS = 5


def davis_flows(davis: Path, anchors: int) -> list[Flow]:
    """DIS flow of every sequence: `anchors` evenly spread frames, four neighbours each."""
    dis = create("dis")
    flows: list[Flow] = []
    for sequence in sorted((davis / "JPEGImages" / "480p").iterdir()):
        frames = sorted(sequence.glob("*.jpg"))
        for a in np.linspace(2, len(frames) - 3, anchors).astype(int):
            squares = [shrink_square(centre_square(_rgb(frames[a + o]), 448), 224) for o in (0, *OFFSETS)]
            indices = tuple(int(a) + o for o in OFFSETS)
            window = Window(
                sequence.name, sequence, OFFSETS, int(a), indices, 0.0, (0.0,) * 4, squares[0], np.stack(squares[1:])
            )
            flows += list(dis.estimate([window])[0].flow_kchw)
    return flows


def _rgb(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path))
    assert image is not None, f"{path} is no picture"
    return np.ascontiguousarray(image[..., ::-1])


def npy16_encode(flow: Flow) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, flow.astype(np.float16))
    return buffer.getvalue()


def npy16_decode(data: bytes) -> Flow:
    return np.load(io.BytesIO(data)).astype(np.float32)


def kitti_encode(flow: Flow) -> bytes:
    """KITTI: 16-bit PNG, value = flow * 64 + 2^15, third channel valid."""
    image = np.ones((*flow.shape[1:], 3), np.uint16)
    image[..., 2] = flow[0] * 64 + 32768.5
    image[..., 1] = flow[1] * 64 + 32768.5
    return cv2.imencode(".png", image)[1].tobytes()


def kitti_decode(data: bytes) -> Flow:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None, "what kitti_encode made is a PNG"
    return (image[..., [2, 1]].astype(np.float32).transpose(2, 0, 1) - 32768) / 64


OUT = np.empty((2, 224, 224), np.int16)


def ours_decode(data: bytes) -> tuple[NDArray[np.int16], float]:
    """As the loader does it: into a slot that is there already, int16 and a quantum."""
    return decode_flow(data, (224, 224), OUT)


def ours_float(data: bytes) -> Flow:
    values, quantum = decode_flow(data)
    return values * np.float32(quantum)


def rate(function: Callable[[Item], object], items: Sequence[Item]) -> float:
    best = 0.0
    for _ in range(ROUNDS):
        began = time.thread_time()
        for item in items:
            function(item)
        best = max(best, len(items) / (time.thread_time() - began))
    return best


def relative_errors(flows: list[Flow], decoded: list[Flow]) -> NDArray[np.float64]:
    errors = []
    for flow, back in zip(flows, decoded, strict=True):
        std = channel_std_px(flow)
        if std.min() >= NOISE_FLOOR_PX:
            errors.append(np.sqrt((((back - flow) / std[:, None, None]) ** 2).mean()))
    return np.array(errors)


@click.command()
@click.option("--davis", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--anchors", default=8, show_default=True, help="Per sequence.")
def main(davis: Path, anchors: int) -> None:
    cv2.setNumThreads(1)
    flows = davis_flows(davis, anchors)
    coders = {
        "npy_fp16": (npy16_encode, npy16_decode, npy16_decode),
        "kitti_png16": (kitti_encode, kitti_decode, kitti_decode),
        "flowfeat": (encode_flow, ours_decode, ours_float),
    }
    note = f"{len(flows)} DIS flows 224x224 of DAVIS"
    sizes = {}
    for name, (encode, decode, to_float) in coders.items():
        members = [encode(f) for f in flows]
        sizes[name] = float(np.mean([len(m) for m in members]))
        errors = relative_errors(flows, [to_float(m) for m in members])
        record("codec", f"{name}_kib_per_flow", sizes[name] / 1024, "KiB", note)
        record("codec", f"{name}_relative_rms_median", 100 * float(np.median(errors)), "%", note)
        record(
            "codec",
            f"{name}_relative_rms_max",
            100 * float(errors.max()),
            "%",
            f"{len(errors)} pairs above the noise floor",
        )
        record("codec", f"{name}_encode_per_s_core", rate(encode, flows), "flows/s", "thread CPU time")
        record("codec", f"{name}_decode_per_s_core", rate(decode, members), "flows/s", "thread CPU time")
    record("codec", "npy_fp16_over_flowfeat_bytes", sizes["npy_fp16"] / sizes["flowfeat"], "x", note)
    record("codec", "kitti_png16_over_flowfeat_bytes", sizes["kitti_png16"] / sizes["flowfeat"], "x", note)


if __name__ == "__main__":
    main()

"""Flow of two images or along a video, drawn or written: what `python -m pipeline flow` does.

Frames larger than a limit are made smaller first (the correlation volume grows with the fourth
power of the side), flow is computed there and brought back to full size and full-size pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from common.flow_colors import flow_to_color, largest_motion_px
from pipeline.flow.estimator import FlowEstimator
from pipeline.flow.evaluate import pair_window, read_frame
from pipeline.flow.files import FORMATS, write_flow
from pipeline.window import Window
from shards.files import atomic_path, write_atomic

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm", ".bmp", ".webp")
VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm")
_BATCH = 8  # pairs per call of the estimator

Frame = NDArray[np.uint8]


def shrink(frame_hwc: Frame, max_side_px: int) -> Frame:
    """The frame at most max_side_px long, proportions kept; itself where it is short enough."""
    height, width = frame_hwc.shape[:2]
    scale = max_side_px / max(height, width)
    if scale >= 1:
        return frame_hwc
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(frame_hwc, size, interpolation=cv2.INTER_AREA), np.uint8)


def enlarge_flow(flow_chw: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Flow at another size, its values in pixels of that size."""
    rows, columns = flow_chw.shape[1:]
    if (rows, columns) == (height, width):
        return flow_chw
    resized = cv2.resize(
        np.ascontiguousarray(flow_chw.transpose(1, 2, 0)), (width, height), interpolation=cv2.INTER_LINEAR
    )
    return np.asarray(
        resized.transpose(2, 0, 1) * np.array([width / columns, height / rows], np.float32)[:, None, None], np.float32
    )


def flow_between(
    estimator: FlowEstimator, windows: list[Window], height: int, width: int
) -> Iterator[NDArray[np.float32]]:
    """Flow of one-neighbour windows at height×width. Raises ValueError where an estimate is not finite."""
    for window, estimate in zip(windows, estimator.estimate(windows), strict=True):
        flow_chw = estimate.flow_kchw[0]
        bad = int((~np.isfinite(flow_chw)).any(axis=0).sum())
        if bad:
            raise ValueError(
                f"{window.path}, frame {window.anchor_index}: the flow is not finite at {bad} of {flow_chw[0].size} pixels; "
                f"try --precision fp32, and check the weights"
            )
        yield enlarge_flow(flow_chw, height, width)


def flow_of_images(estimator: FlowEstimator, first: Path, second: Path, max_side_px: int) -> NDArray[np.float32]:
    """Flow from one image to the other, [2, H, W] in pixels of the images."""
    frames = [read_frame(first), read_frame(second)]
    if frames[0].shape != frames[1].shape:
        raise ValueError(f"{first} and {second} differ in size")
    window = pair_window(shrink(frames[0], max_side_px), shrink(frames[1], max_side_px), first)
    return next(flow_between(estimator, [window], *frames[0].shape[:2]))


def write_result(out: Path, flow_chw: NDArray[np.float32], max_px: float | None) -> None:
    """An image with the colour wheel, or a flow file by its suffix (.flo, .pfm; KITTI's 16-bit PNG as .kitti.png)."""
    if out.name.lower().endswith(".kitti.png") or (out.suffix.lower() in FORMATS and out.suffix.lower() != ".png"):
        write_flow(out, flow_chw)
        return
    if out.suffix.lower() not in IMAGE_SUFFIXES:
        raise ValueError(
            f"{out}: the result is an image ({', '.join(IMAGE_SUFFIXES)}) or a flow file (.flo, .pfm, .kitti.png)"
        )
    done, encoded = cv2.imencode(out.suffix.lower(), flow_to_color(flow_chw, max_px)[..., ::-1])
    if not done:
        raise ValueError(f"{out} cannot be written: this OpenCV makes no {out.suffix} images")
    write_atomic(out, encoded.tobytes())


def read_video(path: Path) -> tuple[Iterator[Frame], float]:
    """RGB frames in order, and the frame rate. Raises ValueError if it is no video."""
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise ValueError(f"{path} is not a readable video" if path.exists() else f"no video at {path}")

    def frames() -> Iterator[Frame]:
        while True:
            more, frame_hwc = capture.read()
            if not more:
                capture.release()
                return
            yield np.ascontiguousarray(frame_hwc[..., ::-1], np.uint8)

    return frames(), capture.get(cv2.CAP_PROP_FPS) or 25.0


def draw_video(
    estimator: FlowEstimator,
    source: Path,
    out: Path,
    *,
    max_px: float | None,
    max_side_px: int,
    max_frames: int | None,
    progress: Callable[[int], None],
) -> tuple[int, float]:
    """Write the flow between consecutive frames as a video; returns (pairs, motion in pixels drawn saturated).

    The video appears under its name when it is whole. progress is called after every batch with the pairs done so far.
    One scale serves the whole video, so that colours can be compared over time: max_px, by default the
    longest motion of the first frames.
    """
    if out.suffix.lower() not in VIDEO_SUFFIXES:
        raise ValueError(f"{out}: a video becomes a video ({', '.join(VIDEO_SUFFIXES)})")
    frames, fps = read_video(source)
    limited = islice(frames, None if max_frames is None else max_frames + 1)
    done = 0
    with atomic_path(out, keep_suffix=True) as temporary:
        writer: cv2.VideoWriter | None = None
        for flows in _flows_along(estimator, source, limited, max_side_px):
            max_px = max_px or max(1.0, *(largest_motion_px(flow) for flow in flows))
            writer = writer or _video_writer(temporary, fps, *flows[0].shape[1:])
            for flow_chw in flows:
                writer.write(np.ascontiguousarray(flow_to_color(flow_chw, max_px)[..., ::-1]))
            done += len(flows)
            progress(done)
        if writer is None or max_px is None:
            raise ValueError(f"{source} has fewer than two readable frames")
        writer.release()
    return done, max_px


def _flows_along(
    estimator: FlowEstimator, source: Path, frames: Iterator[Frame], max_side_px: int
) -> Iterator[list[NDArray[np.float32]]]:
    """Flow from each frame to the next at full size, in batches."""
    pairs = enumerate(pairwise(frames))
    while batch := list(islice(pairs, _BATCH)):
        height, width = batch[0][1][0].shape[:2]
        windows = [pair_window(shrink(a, max_side_px), shrink(b, max_side_px), source, i) for i, (a, b) in batch]
        yield list(flow_between(estimator, windows, height, width))


def _video_writer(path: Path, fps: float, height: int, width: int) -> cv2.VideoWriter:
    """Codec and container follow from the suffix. Raises ValueError where OpenCV cannot write such a file there."""
    suffix = path.suffix.lower()
    codec = "MJPG" if suffix == ".avi" else "VP80" if suffix == ".webm" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    if not writer.isOpened():
        raise ValueError(f"{path} cannot be written as a video")
    return writer

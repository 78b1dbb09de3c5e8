"""Puts synthetic scenes on disk: video files to extract flow from, and DAVIS folders to probe on.

`generate` is what the command line calls. Every file is written under a temporary name, flushed to the disk and renamed, and a video's
scene record (`<name>.scene.json`, or `scene.json` inside a frame folder) comes last, so a killed run is simply run again:
it skips what is complete. Equal arguments give equal bytes. Held-out sequences are drawn from other seeds than the
training videos (`HELD_OUT`), with the same classes of objects.

    OUT/synthetic.json                                  the arguments that shape content
    OUT/videos/synth-00000.mp4, synth-00000.scene.json  training videos
    OUT/davis/JPEGImages/480p/<seq>/00000.jpg           plus scene.json
    OUT/davis/Annotations/480p/<seq>/00000.png          indexed, 0 background, 1..C objects
    OUT/davis/Depth/480p/<seq>/00000.png                16 bit, depth = value / DEPTH_SCALE
    OUT/davis/Tracks/<seq>.npz                          exact tracks of points, as in TAP-Vid-DAVIS (`tracks`)
    OUT/davis/ImageSets/2017/val.txt                    names of the sequences
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.clip import frames_in
from pipeline.synth.compose import Style
from pipeline.synth.render import Renderer
from pipeline.synth.scene import Scene
from pipeline.synth.tracks import tracks_bytes
from shards.files import atomic_path, write_atomic

HELD_OUT = 2**32  # added to the seed of DAVIS sequences; seeds are smaller than this, so the two never meet
DEPTH_SCALE = 1000.0
_JPEG_QUALITY = 95

Progress = Callable[[str, int, int], None]
"""Called with the name of what was finished, how many are done, how many there will be."""


def json_bytes(record: Any) -> bytes:
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


def is_written(record_path: Path, record: dict[str, Any]) -> bool:
    """True when this very scene was finished by an earlier run."""
    return record_path.is_file() and record_path.read_bytes() == json_bytes(record)


def _encode_video(path: Path, scene: Scene, fps: float) -> None:
    """MPEG-4 in .mp4, from OpenCV's own encoder: prediction between frames, as in downloaded clips."""
    fourcc = cv2.VideoWriter.fourcc(*"mp4v")
    with atomic_path(path, keep_suffix=True) as temporary:
        writer = cv2.VideoWriter(str(temporary), cv2.CAP_FFMPEG, fourcc, fps, (scene.width, scene.height))
        if not writer.isOpened():
            raise OSError(
                f"{path}: OpenCV cannot open a video of {scene.width}x{scene.height} at {fps} frames/s for writing here"
            )
        renderer = Renderer(scene)
        for t in range(scene.frames):
            writer.write(cv2.cvtColor(renderer.frame(t), cv2.COLOR_RGB2BGR))
        writer.release()
        readable = frames_in(temporary)
        if readable != scene.frames:  # OpenCV reports no failed write, not even a full disk
            raise OSError(
                f"{path}: {readable} of {scene.frames} frames could be read back after writing; is the disk full?"
            )


def _write_video(out_dir: Path, scene: Scene, fps: float) -> str:
    name = f"synth-{scene.index:05d}"
    record = {**scene.record(), "fps": fps}
    record_path = out_dir / f"{name}.scene.json"
    if not (is_written(record_path, record) and (out_dir / f"{name}.mp4").is_file()):
        _encode_video(out_dir / f"{name}.mp4", scene, fps)
        write_atomic(record_path, json_bytes(record))
    return name


def davis_palette() -> list[int]:
    """768 numbers: label → RGB as in DAVIS annotations (bits of the label dealt over the channels)."""
    labels = np.arange(256)
    rgb = np.zeros((256, 3), int)
    for bit in range(8):
        for channel in range(3):
            rgb[:, channel] |= ((labels >> (3 * bit + channel)) & 1) << (7 - bit)
    return [int(v) for v in rgb.reshape(-1)]


def jpeg_bytes(frame_hwc: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame_hwc).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _mask_bytes(mask_hw: NDArray[np.uint8]) -> bytes:
    image = Image.frombytes("P", (mask_hw.shape[1], mask_hw.shape[0]), mask_hw.tobytes())
    image.putpalette(davis_palette())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def depth_bytes(depth_hw: NDArray[np.float32]) -> bytes:
    values = np.rint(depth_hw * DEPTH_SCALE).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def _write_sequence(out_dir: Path, scene: Scene, fps: float, with_depth: bool) -> str:
    name = f"synth-{scene.index:03d}"
    record = {**scene.record(), "fps": fps}
    trees = {"JPEGImages": ".jpg", "Annotations": ".png"} | ({"Depth": ".png"} if with_depth else {})
    folders = {tree: out_dir / tree / "480p" / name for tree in trees}
    tracks_path = out_dir / "Tracks" / f"{name}.npz"
    if is_written(folders["JPEGImages"] / "scene.json", record) and tracks_path.is_file():
        return name
    renderer = Renderer(scene)
    for tree, folder in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        for t in range(scene.frames):
            match tree:
                case "JPEGImages":
                    data = jpeg_bytes(renderer.frame(t))
                case "Annotations":
                    data = _mask_bytes(scene.mask(t))
                case _:
                    data = depth_bytes(scene.depth(t))
            write_atomic(folder / f"{t:05d}{trees[tree]}", data)
    write_atomic(tracks_path, tracks_bytes(scene))
    write_atomic(folders["JPEGImages"] / "scene.json", json_bytes(record))
    return name


def in_parallel(job: Callable[[int], str], count: int, workers: int, done: Callable[[str], None]) -> None:
    """Run job(0) .. job(count - 1) on threads (OpenCV and numpy release the GIL); the first error ends it.

    At most a few jobs are in flight, so memory does not grow with `count`.
    """
    with ThreadPoolExecutor(workers) as pool:
        pending: set[Future[str]] = set()
        for index in range(count):
            if len(pending) >= 2 * workers:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    done(future.result())
            pending.add(pool.submit(job, index))
        for future in pending:
            done(future.result())


def _counter(progress: Progress | None, first: int, total: int) -> Callable[[str], None]:
    state = {"done": first}

    def count(name: str) -> None:
        state["done"] += 1
        if progress is not None:
            progress(name, state["done"], total)

    return count


def check_arguments(seed: int, fps: float, size: tuple[int, int]) -> None:
    if not 0 <= seed < HELD_OUT:
        raise ValueError(f"seed {seed} is out of range; give 0 <= seed < {HELD_OUT}")
    if not 1 <= fps <= 1000:
        raise ValueError(f"fps {fps} is out of range; give 1 to 1000 frames per second")
    if size[0] % 2 or size[1] % 2:
        raise ValueError(f"size {size[0]}x{size[1]}: the video codec needs an even height and width")


def write_videos(
    out_dir: Path,
    n: int,
    seed: int,
    *,
    frames: int = 24,
    size: tuple[int, int] = (240, 320),
    fps: float = 24.0,
    style: Style | None = None,
    workers: int | None = None,
    done: Callable[[str], None] = lambda name: None,
) -> None:
    """n videos `synth-<index>.mp4` with their scene records into out_dir. size: (height, width), both even.

    Raises ValueError for arguments out of range, OSError when a file cannot be written.
    """
    check_arguments(seed, fps, size)
    out_dir.mkdir(parents=True, exist_ok=True)

    def job(index: int) -> str:
        return _write_video(out_dir, Scene.create(seed, index, size=size, frames=frames, style=style), fps)

    in_parallel(job, n, workers or min(os.cpu_count() or 1, 8), done)


def write_davis(
    out_dir: Path,
    n: int,
    seed: int,
    *,
    frames: int = 20,
    size: tuple[int, int] = (240, 320),
    fps: float = 24.0,
    style: Style | None = None,
    with_depth: bool = True,
    workers: int | None = None,
    done: Callable[[str], None] = lambda name: None,
) -> None:
    """n held-out sequences `synth-<index>` in the layout of DAVIS 2017 into out_dir, and val.txt naming them.

    Raises as `write_videos` does.
    """
    check_arguments(seed, fps, size)
    lists = out_dir / "ImageSets" / "2017"
    lists.mkdir(parents=True, exist_ok=True)

    def job(index: int) -> str:
        scene = Scene.create(seed + HELD_OUT, index, size=size, frames=frames, style=style)
        return _write_sequence(out_dir, scene, fps, with_depth)

    in_parallel(job, n, workers or min(os.cpu_count() or 1, 8), done)
    write_atomic(lists / "val.txt", "".join(f"synth-{index:03d}\n" for index in range(n)).encode())


def generate(
    out_dir: Path,
    videos: int,
    davis_sequences: int,
    seed: int,
    frames: int = 24,
    size: tuple[int, int] = (240, 320),
    fps: float = 24.0,
    progress: Progress | None = None,
    *,
    style: Style | None = None,
) -> None:
    """`videos` training videos in out_dir/videos and `davis_sequences` held-out ones in out_dir/davis.

    Run again with larger counts it adds what is missing. Raises ValueError when out_dir holds videos made with other
    arguments, OSError when a file cannot be written.
    """
    if videos < 0 or davis_sequences < 0 or videos + davis_sequences == 0:
        raise ValueError(
            f"videos={videos}, davis_sequences={davis_sequences}: ask for at least one of them, and none below zero"
        )
    check_arguments(seed, fps, size)
    record = {**Scene.create(seed, 0, size=size, frames=frames, style=style).record(), "fps": fps}
    out_dir.mkdir(parents=True, exist_ok=True)  # only now: refused arguments leave nothing behind
    claim(out_dir, record)
    total = videos + davis_sequences
    if videos:
        done = _counter(progress, 0, total)
        write_videos(out_dir / "videos", videos, seed, frames=frames, size=size, fps=fps, style=style, done=done)
    if davis_sequences:
        done = _counter(progress, videos, total)
        write_davis(out_dir / "davis", davis_sequences, seed, frames=frames, size=size, fps=fps, style=style, done=done)


def claim(out_dir: Path, record: dict[str, Any]) -> None:
    """Write down what shapes this folder's content, or compare with what an earlier run wrote down."""
    del record["index"]
    path = out_dir / "synthetic.json"
    if not path.exists():
        write_atomic(path, json_bytes(record))
        return
    try:
        earlier = json.loads(path.read_text())
        names_before = earlier.keys()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged; delete {out_dir} or give another folder") from error
    wanted = json.loads(json_bytes(record))
    names = [name for name in sorted({*names_before, *wanted}) if earlier.get(name) != wanted.get(name)]
    if names:
        differing = "; ".join(f"{name} was {earlier.get(name)!r}, now {wanted.get(name)!r}" for name in names)
        raise ValueError(
            f"{out_dir} holds synthetic videos made with other settings ({differing}); give another folder or delete it"
        )

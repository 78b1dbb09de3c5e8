"""One library reads videos, for `bench/decoders.py`, which starts this file once for each library.

Comes in: tasks on standard input. Each is done by a fork of this process, which has imported the library once, and which is killed past the
deadline. Goes out: for each task JSON lines in a file, flushed one by one, so that what was known before a crash survives it: a `sweep`
(every frame in order, as the library itself gives them), `jumps` (the frames of 16 windows by the library's own random access) and
`seam` (the same frames as extraction reads them). With `keep`, frames of a sweep are saved as they are instead. CPU time is that of the
fork, without the digests.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pipeline.video.sampling import draw_anchor

PASSES = 16
Frames = Iterator[tuple[float, NDArray[np.uint8]]]
"""(presentation time in seconds or NaN, frame as the library gives it)"""


class Decord:
    """decord and decord2: the same interface."""

    def __init__(self, path: str) -> None:
        import decord  # one of two packages of this name, so only where it is measured

        decord.logging.set_level(decord.logging.QUIET)
        self.reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        self.listed = len(self.reader)
        self.flagged = 0

    def frames(self) -> Frames:
        stamps_s = self.reader.get_frame_timestamp(list(range(self.listed))).reshape(-1, 2)[:, 0]
        for stamp_s in stamps_s:
            yield float(stamp_s), self.reader.next().asnumpy()

    def at(self, wanted: Sequence[int]) -> NDArray[np.uint8]:
        batch: NDArray[np.uint8] = self.reader.get_batch(list(wanted)).asnumpy()
        return batch


class PyAV:
    """PyAV. Its random access is a seek to the key frame before each window, and time stamps."""

    def __init__(self, path: str) -> None:
        import av  # optional

        self.av = av
        self.path = path
        self.flagged = 0
        with av.open(path, metadata_errors="replace") as container:
            self.listed = container.streams.best("video").frames

    def frames(self) -> Frames:
        with self.av.open(self.path, metadata_errors="replace") as container:
            stream = container.streams.best("video")
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                self.flagged += bool(frame.is_corrupt)
                stamp_s = np.nan if frame.pts is None else float(frame.pts * frame.time_base)
                yield stamp_s, frame.to_ndarray(format="rgb24")

    def at(self, wanted: Sequence[int]) -> list[NDArray[np.uint8]]:
        with self.av.open(self.path, metadata_errors="replace") as container:
            stream = container.streams.best("video")
            stamps = sorted(p.pts for p in container.demux(stream) if p.pts is not None)
        found = []
        with self.av.open(self.path, metadata_errors="replace") as container:
            stream = container.streams.best("video")
            stream.codec_context.thread_count = 1
            for index in wanted:
                if index == 0 or index - 1 not in wanted:
                    container.seek(stamps[index], stream=stream)
                    decoded = container.decode(stream)
                frame = next(frame for frame in decoded if frame.pts is not None and frame.pts >= stamps[index])
                found.append(frame.to_ndarray(format="rgb24"))
        return found


class TorchCodec:
    """torchcodec on the CPU, one FFmpeg thread, its exact seek mode."""

    def __init__(self, path: str) -> None:
        decoders = importlib.import_module(MODULES["torchcodec"])  # optional, and it loads torch
        self.decoder = decoders.VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="exact", dimension_order="NHWC")
        self.listed = len(self.decoder)
        self.flagged = 0

    def frames(self) -> Frames:
        for index in range(self.listed):
            frame = self.decoder.get_frame_at(index)
            yield float(frame.pts_seconds), frame.data.numpy()

    def at(self, wanted: Sequence[int]) -> NDArray[np.uint8]:
        batch: NDArray[np.uint8] = self.decoder.get_frames_at(list(wanted)).data.numpy()
        return batch


LIBRARIES: dict[str, Callable[[str], Decord | PyAV | TorchCodec]] = {
    "decord": Decord,
    "decord2": Decord,
    "pyav": PyAV,
    "torchcodec": TorchCodec,
}


MODULES = {"decord": "decord", "decord2": "decord", "pyav": "av", "torchcodec": "torchcodec.decoders"}


@dataclass(frozen=True)
class Task:
    """keep: save these frames of a sweep to `out` instead of reading as is measured."""

    path: str
    out: str
    deadline_s: float
    sweep_only: bool = False
    keep: tuple[int, ...] = ()


def digest(frame: NDArray[np.uint8]) -> str:
    return blake2b(np.ascontiguousarray(frame).data, digest_size=8).hexdigest()


def wanted_frames(n_frames: int, name: str) -> list[int]:
    """Those of PASSES windows of offsets up to ±2, drawn as extraction draws them."""
    anchors = [2 + draw_anchor(0, name, p, n_frames - 4) for p in range(PASSES)]
    return sorted({anchor + k for anchor in anchors for k in range(-2, 3)})


def say(out: TextIO, **fields: object) -> None:
    print(json.dumps(fields), file=out, flush=True)


def sweep(library: str, path: Path, out: TextIO) -> int:
    """Every frame in order. Returns their number."""
    began = time.process_time()
    reader = LIBRARIES[library](str(path))
    opened = time.process_time()
    say(out, what="opened", listed=reader.listed, cpu_s=opened - began)
    digests, stamps_s, kinds = [], [], set()
    error, aside_s = None, 0.0
    try:
        for stamp_s, frame in reader.frames():
            pause = time.process_time()
            digests.append(digest(frame))
            stamps_s.append(stamp_s)
            kinds.add((str(frame.dtype), *frame.shape))
            aside_s += time.process_time() - pause
    except Exception as raised:  # whatever a library raises is what is measured here
        error = in_words(raised)
    cpu_s = time.process_time() - opened - aside_s
    say(out, what="sweep", cpu_s=cpu_s, error=error, flagged=reader.flagged, digests=digests, stamps_s=stamps_s,
        kinds=sorted(kinds))  # fmt: skip
    return 0 if error else len(digests)


def jumps(library: str, path: Path, wanted: Sequence[int], out: TextIO) -> None:
    """The frames of the windows by the library's own random access."""
    began = time.process_time()
    frames = LIBRARIES[library](str(path)).at(wanted)
    cpu_s = time.process_time() - began
    say(out, what="jumps", cpu_s=cpu_s, wanted=wanted, digests=[digest(frame) for frame in frames])


def seam(library: str, path: Path, wanted: Sequence[int], out: TextIO) -> None:
    """The frames of the windows as extraction reads them. torchcodec has no source there: its own random access stands for it."""
    open_source = seam_source(library)
    began, aside_s, digests = time.process_time(), 0.0, []
    for _, frame in open_source(path).fetch(wanted):
        pause = time.process_time()
        digests.append(digest(frame))
        aside_s += time.process_time() - pause
    say(out, what="seam", cpu_s=time.process_time() - began - aside_s, wanted=wanted, digests=digests)


class TorchCodecFrames:
    """torchcodec's random access in the shape of a frame source."""

    def __init__(self, path: Path) -> None:
        self.library = TorchCodec(str(path))

    def fetch(self, wanted: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        return zip(wanted, self.library.at(wanted), strict=True)


def seam_source(library: str) -> Callable[[Path], Any]:
    """From a path to what extraction would fetch frames from. Imported by need: a process shall hold no second video library."""
    from pipeline.video.rejects import check_file

    if library == "torchcodec":
        return TorchCodecFrames
    if library == "pyav":
        from pipeline.video.pyav_frames import PyAVFrames

        return lambda path: PyAVFrames(path, check_file(path))
    from pipeline.video.decord_frames import DecordFrames

    return lambda path: DecordFrames(path, check_file(path))


def keep(library: str, path: Path, wanted: Sequence[int], to: Path) -> None:
    """Save some frames of a sweep."""
    chosen = set(wanted)
    reader = LIBRARIES[library](str(path))
    np.savez(to, *[frame for i, (_, frame) in enumerate(reader.frames()) if i in chosen])


def answer(library: str, task: Task) -> None:
    """All that is asked of one file. Whatever a library raises is what is measured here, so it is written down."""
    if task.keep:
        keep(library, Path(task.path), task.keep, Path(task.out))
        return
    with open(task.out, "w") as out:
        try:
            n_frames = sweep(library, Path(task.path), out)
        except Exception as raised:
            say(out, what="refused", error=in_words(raised))
            return
        if n_frames < 5 or task.sweep_only:
            return
        wanted = wanted_frames(n_frames, Path(task.path).name)
        for ask in (jumps, seam):
            try:
                ask(library, Path(task.path), wanted, out)
            except Exception as raised:
                say(out, what=ask.__name__, error=in_words(raised))


def in_words(raised: Exception) -> str:
    return f"{type(raised).__name__}: {raised}".strip().splitlines()[0][:200]


def end_of(pid: int, deadline_s: float) -> str:
    """How a process ended: "", a signal's name, "exit N", or "hung" and killed."""
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            code = os.waitstatus_to_exitcode(status)
            return signal.Signals(-code).name if code < 0 else f"exit {code}" if code else ""
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


def main() -> None:
    """python bench/decoders_read.py LIBRARY, tasks on standard input. Says how each ended on standard output."""
    library = sys.argv[1]
    importlib.import_module(MODULES[library])
    seam_source(library)  # imports too
    print("ready", flush=True)
    for line in sys.stdin:
        task = Task(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            answer(library, task)
            os._exit(0)
        print(json.dumps(end_of(pid, task.deadline_s)), flush=True)


if __name__ == "__main__":
    main()

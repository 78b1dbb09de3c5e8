"""What the extraction engine does with a list of videos, beside what its estimator does alone and what a plain engine does.

Used by `extraction.py`, and by whoever wants the figures on another device. Every function takes a `Case` and measures; nothing
is recorded here. CPU times are those of all processes together, start-up excluded, so that they can be trusted on a machine that
others use as well; wall-clock figures cannot.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil

from common.freed_memory import OF_A_VIDEO, keep_freed_memory
from pipeline.extract.batches import windows_per_call
from pipeline.extract.devices import devices_of, first_device
from pipeline.extract.encode import encode_image
from pipeline.extract.local import LocalRunner
from pipeline.extract.run import ExtractionRequest, Tally, extract, stated
from pipeline.extract.runner import ChunkJob, Event, StageLoad
from pipeline.flow.estimator import EstimatorChoice, EstimatorOptions, choose
from pipeline.video.datasets import list_videos
from pipeline.video.decoder import Decoder
from pipeline.video.decord_library import decord
from pipeline.video.geometry import centre_square, shrink_square
from pipeline.video.rejects import Reject
from pipeline.window import Window
from shards.schema import Settings

COPIES = 3


@dataclass(frozen=True)
class Case:
    """videos: a folder. device: as in --device. precision: of a flow network."""

    videos: Path
    flow: str = "dis"
    weights: str | None = None
    device: str = "cpu"
    passes: int = 16
    workers: int = 2
    precision: str = "fp32"

    @property
    def choice(self) -> EstimatorChoice:
        return choose(self.flow, EstimatorOptions(self.weights, first_device(self.device), self.precision))

    @property
    def settings(self) -> Settings:
        return Settings("folder", stated(self.choice))


@dataclass(frozen=True)
class Engine:
    """What the engine does once it runs: of a run over every clip `COPIES` times what a run over every clip once did not take, so that
    neither start-up nor the ends of a run count.

    pairs_per_s_with_start: of the longer run, from the first process that is started. bytes, all_pairs: the longer run's set.
    flow_waits, decoding_waits: means over the longer run of what the progress line says.
    """

    pairs_per_s: float
    pairs_per_s_with_start: float
    cpu_ms_per_pair: float
    bytes: int
    all_pairs: int
    loads: list[StageLoad]

    @property
    def flow_waits(self) -> float:
        return float(np.mean([load.flow_waits for load in self.loads] or [0.0]))

    @property
    def decoding_waits(self) -> float:
        return float(np.mean([load.decoding_waits for load in self.loads] or [0.0]))

    @property
    def limited_by(self) -> str:
        """The stage that the others wait for."""
        encoding = float(np.mean([load.for_encoding for load in self.loads] or [0]))
        if self.flow_waits < 0.1:
            return "flow"
        return "encoding" if encoding > 64 else "decoding"


@dataclass
class _Run:
    """One extraction. cpu_s: of all processes."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    bytes: int = 0
    pairs: int = 0
    loads: list[StageLoad] = field(default_factory=list)


class _Watched(LocalRunner):
    """Reads the clocks where the processes still live."""

    cpu_s = 0.0

    def run(self, jobs: Sequence[ChunkJob], on_event: Callable[[Event], None]) -> None:
        super().run(jobs, on_event)
        self.cpu_s = _cpu_s()


def run_engine(case: Case) -> Engine:
    """Extract everything twice, into directories that are removed afterwards."""
    with tempfile.TemporaryDirectory() as home:
        once, often = (_run(case, copies_of(case.videos, Path(home) / str(n), n)) for n in (1, COPIES))
    pairs = often.pairs - once.pairs
    return Engine(
        pairs / (often.seconds - once.seconds),
        often.pairs / often.seconds,
        1e3 * (often.cpu_s - once.cpu_s) / pairs,
        often.bytes,
        often.pairs,
        often.loads,
    )


def _run(case: Case, videos: Path) -> _Run:
    run = _Run()

    def note(event: Event, tally: Tally) -> None:
        if isinstance(event, StageLoad):
            run.loads.append(event)

    with tempfile.TemporaryDirectory() as out:
        request = ExtractionRequest(videos, Path(out) / "set", case.settings, case.choice, passes=case.passes)
        runner = _Watched(case.workers, case.choice, devices_of(case.choice, case.device))
        began, used = time.perf_counter(), _cpu_s()
        manifest = extract(request, runner, note, lambda plan, tally: None)
        run.seconds, run.cpu_s = time.perf_counter() - began, runner.cpu_s - used
        run.bytes = sum(shard.bytes for shard in manifest.shards)
        run.pairs = sum(manifest.counts["pairs"].values())
    return run


def copies_of(videos: Path, folder: Path, count: int) -> Path:
    """A folder of links in which every clip is found so many times under different names, which draw different windows."""
    folder.mkdir()
    for clip in videos.iterdir():
        for number in range(count):
            (folder / f"{clip.stem}-{number}{clip.suffix}").symlink_to(clip.resolve())
    return folder


def _cpu_s() -> float:
    """CPU time so far of this process and all that it has started and that live, or have been waited for."""
    own = psutil.Process()
    total = 0.0
    for process in [own, *own.children(recursive=True)]:
        try:
            used = process.cpu_times()
        except psutil.Error:
            continue
        total += used.user + used.system + used.children_user + used.children_system
    return total


def windows_in_memory(case: Case, pairs: int) -> list[Window]:
    """Decoded windows of the first videos, enough for so many pairs."""
    found: list[Window] = []
    with Decoder() as decoder:
        for video in list_videos("folder", case.videos):
            try:
                decoded = decoder.windows(video, range(min(case.passes, 4)), case.settings)
            except Reject:
                continue
            found += [anchor.window for anchor in decoded.anchors]
            if len(found) * len(case.settings.offsets) >= pairs:
                break
    return found


@dataclass(frozen=True)
class Alone:
    """An estimator with its frames in memory. pairs_per_s: of all processes together; cpu_ms_per_pair: of one pair."""

    pairs_per_s: float
    cpu_ms_per_pair: float


def run_alone(case: Case, windows: Sequence[Window], processes: int, seconds: float) -> Alone:
    """In batches of the size that the engine makes, by as many processes as it uses for flow."""
    batch = windows_per_call(case.choice, len(case.settings.offsets), None)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        runs = [pool.submit(_estimate_for, case, list(windows), batch, seconds) for _ in range(processes)]
        ended = [run.result() for run in runs]
    return Alone(
        sum(pairs / wall for pairs, wall, _ in ended), 1e3 * sum(c for _, _, c in ended) / sum(p for p, _, _ in ended)
    )


def _estimate_for(case: Case, windows: list[Window], batch: int, seconds: float) -> tuple[int, float, float]:
    """(pairs, wall s, CPU s)."""
    keep_freed_memory(OF_A_VIDEO)  # as the engine's workers do
    if case.flow not in ("dis", "truth"):
        import torch  # only where a network runs

        torch.set_num_threads(1)
    estimator = case.choice.build()
    estimator.estimate(windows[:batch])
    began, cpu, pairs, at = time.perf_counter(), time.process_time(), 0, 0
    while time.perf_counter() - began < seconds:
        part = windows[at : at + batch]
        estimator.estimate(part)
        pairs += sum(len(window.offsets) for window in part)
        at = at + batch if at + 2 * batch <= len(windows) else 0
    return pairs, time.perf_counter() - began, time.process_time() - cpu


@dataclass(frozen=True)
class Plain:
    """The plain engine. flow_bytes: of one pair."""

    pairs_per_s: float
    cpu_ms_per_pair: float
    flow_bytes: float
    whole_bytes: float


def run_plain(case: Case, pairs_per_video: int, most_videos: int) -> Plain:
    """One pair after the other in one process: two seeks, two resizes, one call of the estimator, one .npy of float16 per pair, the two
    images as JPEG."""
    estimator = case.choice.build()
    videos = list_videos("folder", case.videos)[:most_videos]
    generator = np.random.default_rng(0)
    pairs = flow_bytes = image_bytes = 0
    began, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as out:
        for video in videos:
            try:
                reader = decord.VideoReader(str(video.path), num_threads=1)
                if len(reader) < 6:
                    continue
                for _ in range(pairs_per_video):
                    first = int(generator.integers(2, len(reader) - 2))
                    second = first + int(generator.choice((-2, -1, 1, 2)))
                    images = [centre_square(reader[index].asnumpy(), 448) for index in (first, second)]
                    squares = [shrink_square(image_hwc, 224) for image_hwc in images]
                    window = Window(
                        video.id, video.path, (1,), first, (second,), 0.0, (0.0,), squares[0], squares[1][None]
                    )
                    path = Path(out) / f"{pairs:06d}.npy"
                    np.save(path, estimator.estimate([window])[0].flow_kchw[0].astype(np.float16))
                    flow_bytes += path.stat().st_size
                    for number, image_hwc in enumerate(images):
                        image_bytes += (Path(out) / f"{pairs:06d}-{number}.jpg").write_bytes(
                            encode_image(image_hwc, 90)
                        )
                    pairs += 1
            except decord.DECORDError:
                continue
    wall, used = time.perf_counter() - began, time.process_time() - cpu
    return Plain(pairs / wall, 1e3 * used / pairs, flow_bytes / pairs, (flow_bytes + image_bytes) / pairs)

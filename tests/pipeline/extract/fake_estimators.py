"""Estimators that misbehave in ways that real ones only do on bad days; they can be pickled, so that real workers meet them."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import numpy as np

from pipeline.extract.run import ExtractionRequest, stated
from pipeline.flow.dis import DisFlow
from pipeline.flow.estimator import FlowEstimator, choose
from pipeline.video.messages import framed
from pipeline.window import Window, WindowFlow
from shards.schema import Settings, Statement
from tests.pipeline.extract.small_extraction import SMALL


@dataclass(frozen=True)
class Trouble:
    """What happens, and where. marks: a folder in which each process leaves its device and number once it has worked.

    raises, kills, hangs: videos for which the estimator raises, its process ends, or nothing comes back. lost_once: flow of this video
    cannot be handed over, once. stopped_once: the process is stopped in the middle of the answer for this video, once. falls: after the
    first such exception every call raises, as on a GPU whose context is lost. dies_once_on: a device whose first process ends at its
    first batch; stays_dead: on which nothing can be built after that, as on a GPU that has fallen off the bus.
    """

    marks: Path
    raises: tuple[str, ...] = ()
    kills: tuple[str, ...] = ()
    hangs: tuple[str, ...] = ()
    lost_once: str = ""
    stopped_once: str = ""
    falls: bool = False
    dies_once_on: str | None = None
    stays_dead: bool = False

    def wait_for(self, mark: str) -> None:
        """Until another process has left such a mark; at most a minute."""
        until = time.monotonic() + 60
        while not list(self.marks.glob(mark)) and time.monotonic() < until:
            time.sleep(0.01)


class Troubled:
    """DIS with trouble. In a batch together it adds a little noise that depends on the batch's size, as kernels do."""

    name = "dis"

    def __init__(self, trouble: Trouble, device: str) -> None:
        self.trouble, self.device, self.dis, self.fallen = trouble, device, DisFlow(), False

    def estimate(self, windows: Sequence[Window]) -> list[WindowFlow]:
        names = {window.video_id for window in windows}
        if self.fallen:
            raise RuntimeError("unspecified launch failure")
        if names & set(self.trouble.kills):
            os._exit(9)
        if names & set(self.trouble.hangs):
            time.sleep(3600)
        if self.device == self.trouble.dies_once_on and not (self.trouble.marks / "died").exists():
            (self.trouble.marks / "died").touch()
            os._exit(9)
        if self.trouble.dies_once_on is not None:
            self.trouble.wait_for("refused" if self.trouble.stays_dead else "died")  # however late that device is ready
        if names & set(self.trouble.raises):
            self.fallen = self.trouble.falls
            raise IndexError("no such pixel")
        (self.trouble.marks / f"{self.device}-{os.getpid()}").touch()
        # So that both devices get something to do, and what another one has said is heard first.
        time.sleep(0.2 if self.trouble.stays_dead else 0.02 * (self.device != ""))
        flows = self.dis.estimate(windows)
        if self.trouble.lost_once in names and not (self.trouble.marks / "lost").exists():
            (self.trouble.marks / "lost").touch()
            return [replace(flow, flow_kchw=cast(Any, "no array")) for flow in flows]
        if self.trouble.stopped_once in names and not (self.trouble.marks / "stopped").exists():
            (self.trouble.marks / "stopped").touch()
            setattr(Connection, "send", stop_in_the_middle)  # noqa: B010  (mypy: a method)
        rounding = np.float32(len(windows) / 16) if self.device else np.float32(0)
        return [WindowFlow(flow.flow_kchw + rounding, np.full_like(flow.flow_kchw[:, 0], 0.5)) for flow in flows]


def stop_in_the_middle(connection: Connection, answer: object) -> None:
    """Instead of `Connection.send`, in a worker's process."""
    message = framed(pickle.dumps(answer))
    os.write(connection.fileno(), message[: len(message) // 2])
    os.kill(os.getpid(), signal.SIGSTOP)


@dataclass(frozen=True)
class TroubledChoice:
    """Looks at each window alone."""

    trouble: Trouble
    name = "dis"
    smallest_side_px = 1

    def statement(self) -> Statement:
        return choose("dis").statement()

    def build(self) -> FlowEstimator:
        return Troubled(self.trouble, "")


@dataclass(frozen=True)
class TogetherChoice:
    """Runs pairs together, on a device that is none."""

    trouble: Trouble
    device: str = "fake:0"
    batch_pairs: int = 12
    name = "dis"
    smallest_side_px = 1

    def statement(self) -> Statement:
        return choose("dis").statement()

    def on_device(self, device: str) -> TogetherChoice:
        return replace(self, device=device)

    def build(self) -> FlowEstimator:
        again = self.device == self.trouble.dies_once_on and (self.trouble.marks / "died").exists()
        if again and self.trouble.stays_dead:
            (self.trouble.marks / "refused").touch()
            raise RuntimeError(f"{self.device}: no such device")
        if again:
            self.trouble.wait_for("fake:0-*")  # so that it does not do everything before the other one is ready
        return Troubled(self.trouble, self.device)


def asked(
    videos: Path, out: Path, choice: TroubledChoice | TogetherChoice, *, passes: int = 2, chunk_videos: int = 2
) -> ExtractionRequest:
    """An extraction of small squares with it."""
    content = {**SMALL, "chunk_videos": chunk_videos, "keep_confidence": True}
    settings = Settings(dataset="folder", estimator=stated(choice), **content)
    return ExtractionRequest(videos, out, settings, choice, passes=passes, deadline_s=60.0)

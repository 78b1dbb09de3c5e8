"""A process that computes flow, or encodes samples, or both: tasks come in over a pipe, pixels through an arena.

    FlowTask     frames (arena) ─▶ estimator ─▶ encoded samples (pipe)              on a CPU: flow and encoding in one place
                                             ─▶ flow (arena) where `flow_places` are given    beside an accelerator
    EncodeTask   frames and flow (arena) ─▶ encoded samples (pipe)

A process that has an estimator may be given more than one task at a time; they are answered in order. While an accelerator works
on one batch, a thread moves the flow of the one before. Everything here comes from and goes to our own processes, so it is pickled.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle

import numpy as np
from numpy.typing import NDArray

from common.freed_memory import OF_A_VIDEO, keep_freed_memory
from common.memory import is_out_of_memory
from common.parent_death import die_with
from pipeline.extract.blame import CarefulEstimator, FlowFailure
from pipeline.extract.encode import encode_sample
from pipeline.flow.estimator import EstimatorChoice
from pipeline.video.arena import Arena, write_at
from pipeline.video.datasets import Video
from pipeline.video.decoder import DecodedAnchor, layout_of, stored_anchor
from pipeline.video.messages import WindowFrames
from pipeline.window import WindowFlow
from shards.schema import Settings
from shards.writer import EncodedSample


@dataclass(frozen=True)
class StoredWindow:
    """A decoded window in the arena of frames. offset: where its pixels begin."""

    video: Video
    pass_index: int
    frames: WindowFrames
    offset: int


@dataclass(frozen=True)
class FlowTask:
    """One batch. flow_places: offsets in the arena of flow, one per window; empty: encode at once."""

    settings: Settings
    windows: tuple[StoredWindow, ...]
    flow_places: tuple[int, ...] = ()


@dataclass(frozen=True)
class EncodeTask:
    """Windows with their flow. with_confidence: whether confidence lies behind it."""

    settings: Settings
    windows: tuple[StoredWindow, ...]
    flow_places: tuple[int, ...]
    with_confidence: bool


@dataclass(frozen=True)
class FlowStored:
    """Flow of a window lies where it was asked for."""

    with_confidence: bool


Answer = EncodedSample | FlowStored | FlowFailure


@dataclass(frozen=True)
class TaskDone:
    """One answer per window."""

    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Broken:
    """The estimator fails whatever it is given; the process has ended. error: its name and words in one line."""

    error: str
    trace: str
    out_of_memory: bool


@dataclass(frozen=True)
class WorkerReady:
    """A worker's first words. refusal: why it cannot work, in one line."""

    refusal: str = ""


def flow_bytes(settings: Settings) -> int:
    """Room for the flow, the reverse flow where the set keeps it, and the confidence of one window."""
    return (
        len(settings.offsets)
        * (5 if settings.keep_reverse else 3)
        * settings.flow_size**2
        * np.dtype(np.float32).itemsize
    )


def work(connection: Connection, parent_pid: int, threads: int) -> None:
    """The whole life of a worker."""
    die_with(parent_pid)
    keep_freed_memory(OF_A_VIDEO)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    os.environ["OMP_NUM_THREADS"] = str(threads)
    frames, flow = Arena(recv_handle(connection)), Arena(recv_handle(connection))
    try:
        # Received here, not as an argument: unpickling it may import torch, which reads the number of threads only then.
        choice: EstimatorChoice | None = connection.recv()
        if "torch" in sys.modules:  # maybe long since: a spawned process begins by importing its parent's main module
            sys.modules["torch"].set_num_threads(threads)
        estimator = None if choice is None else CarefulEstimator(choice.build())
    except Exception as error:
        connection.send(WorkerReady(f"the flow estimator cannot be built: {type(error).__name__}: {error}"))
        return
    connection.send(WorkerReady())
    with ThreadPoolExecutor(1) as mover:
        _serve(connection, frames, flow, estimator, mover)


def _serve(
    connection: Connection, frames: Arena, flow: Arena, estimator: CarefulEstimator | None, mover: ThreadPoolExecutor
) -> None:
    moving: Future[None] | None = None
    while True:
        try:
            task: FlowTask | EncodeTask | None = connection.recv()
        except EOFError:
            return
        if task is None:
            return
        anchors = [_anchor(frames, task.settings, window) for window in task.windows]
        if isinstance(task, EncodeTask):
            flows = [_read_flow(flow, task.settings, place, task.with_confidence) for place in task.flow_places]
            _answer(connection, _encoded(task.settings, anchors, flows))
            continue
        assert estimator is not None
        try:
            found = estimator.estimate([anchor.window for anchor in anchors])
        except Exception as error:
            if moving is not None:
                moving.result()
            words = f"{type(error).__name__}: {error}"
            trace = "".join(traceback.format_exception(error))
            connection.send(Broken(words, trace, is_out_of_memory(error)))
            return
        if not task.flow_places:
            _answer(connection, _encoded(task.settings, anchors, found))
            continue
        if moving is not None:
            moving.result()
        moving = mover.submit(_move, connection, flow, task.flow_places, found)
        moving.add_done_callback(_end_with)


def _end_with(moved: Future[None]) -> None:
    """A batch whose flow could not be handed over ends the process: the main thread may be waiting for a task that will never come."""
    error = moved.exception()
    if error is not None:
        traceback.print_exception(error)
        os._exit(1)


def _answer(connection: Connection, answers: Sequence[Answer]) -> None:
    connection.send(TaskDone(tuple(answers)))


def _move(
    connection: Connection,
    arena: Arena,
    places: Sequence[int],
    found: Sequence[WindowFlow | FlowFailure],
) -> None:
    answers: list[Answer] = []
    for place, flow in zip(places, found, strict=True):
        if isinstance(flow, FlowFailure):
            answers.append(flow)
            continue
        arrays: list[NDArray[np.float32]] = [np.asarray(flow.flow_kchw, np.float32)]
        if (
            flow.reverse_kchw is not None
        ):  # of sets that keep it alone: `_read_flow` looks for it there and nowhere else
            arrays.append(np.asarray(flow.reverse_kchw, np.float32))
        if flow.confidence_khw is not None:
            arrays.append(np.asarray(flow.confidence_khw, np.float32))
        write_at(arena.descriptor, place, arrays)
        answers.append(FlowStored(flow.confidence_khw is not None))
    _answer(connection, answers)


def _anchor(arena: Arena, settings: Settings, window: StoredWindow) -> DecodedAnchor:
    layout = layout_of(settings)
    return stored_anchor(arena, window.offset, layout, window.video, settings.offsets, window.pass_index, window.frames)


def _read_flow(arena: Arena, settings: Settings, place: int, with_confidence: bool) -> WindowFlow:
    count, side = len(settings.offsets), settings.flow_size
    ways = 2 if settings.keep_reverse else 1
    flow_wkchw = arena.read(place, (ways, count, 2, side, side), np.float32).view(np.float32)
    confidence_khw = None
    if with_confidence:
        confidence_khw = arena.read(place + flow_wkchw.nbytes, (count, side, side), np.float32).view(np.float32)
    return WindowFlow(flow_wkchw[0], confidence_khw, flow_wkchw[1] if settings.keep_reverse else None)


def _encoded(
    settings: Settings, anchors: Sequence[DecodedAnchor], flows: Sequence[WindowFlow | FlowFailure]
) -> list[Answer]:
    return [
        flow if isinstance(flow, FlowFailure) else encode_sample(anchor, flow, settings)
        for anchor, flow in zip(anchors, flows, strict=True)
    ]

"""Any network of the family behind the `FlowEstimator` protocol: windows in, flow in pixels out.

Windows of whatever videos become one list of distinct frames and one list of (anchor, neighbour)
pairs, so that a frame's features are computed once however many windows it is in. Pairs run
in batches; a batch that does not fit the memory is halved, and stays halved.

Shape legend: F frames, P pairs, K neighbours, S side of the square.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.device import pick_device
from pipeline.flow.consistency import round_trip_confidence
from pipeline.flow.estimator import EstimatorOptions
from pipeline.flow.networks import sea_raft
from pipeline.flow.networks.build import build_network
from pipeline.flow.networks.encoders import fold_batch_norms
from pipeline.flow.networks.memory import pairs_that_fit
from pipeline.flow.networks.table import NETWORKS
from pipeline.flow.options import as_count, as_switch, check_names
from pipeline.flow.weights.catalogue import WeightSource, resolve
from pipeline.flow.weights.checkpoints import fitting_checkpoint, load_checkpoint, load_random
from pipeline.window import Window, WindowFlow
from shards.schema import Statement

log = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CONFIDENCES = ("auto", "none", "network", "round-trip")


@dataclass(frozen=True)
class NetworkOptions:
    """What `--flow-option` may say to a network.

    iterations: None takes the network's own (RAFT 20, SEA-RAFT 4, SMURF 12). batch_pairs: pairs per run, None
    takes 8 on a CPU and 256 elsewhere. confidence: "network" is SEA-RAFT's own uncertainty, "round-trip" the
    forward-backward consistency (twice the work), "auto" the network's own where it has one. channels_last:
    memory layout, None takes it everywhere but on a CPU. compile: torch.compile for encoders and update.
    """

    iterations: int | None = None
    batch_pairs: int | None = None
    confidence: str = "auto"
    channels_last: bool | None = None
    compile: bool = False

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> NetworkOptions:
        """Raises ValueError on an unknown name or a value out of range."""
        check_names("flow networks", texts, [field.name for field in fields(cls)])
        options = cls(
            iterations=as_count("iterations", texts["iterations"]) if "iterations" in texts else None,
            batch_pairs=as_count("batch_pairs", texts["batch_pairs"]) if "batch_pairs" in texts else None,
            confidence=texts.get("confidence", "auto"),
            channels_last=as_switch("channels_last", texts["channels_last"]) if "channels_last" in texts else None,
            compile=as_switch("compile", texts.get("compile", "false")),
        )
        if options.confidence not in CONFIDENCES:
            raise ValueError(f"confidence must be one of {', '.join(CONFIDENCES)}, not {options.confidence!r}")
        return options


@dataclass(frozen=True)
class NetworkChoice:
    """A network of the table with everything that decides how it runs. weights: "sha256:…" or "random:SEED".

    iterations and confidence are what the run uses; in `options` they may be open.
    """

    name: str
    source: WeightSource
    weights: str
    device: str
    precision: str
    iterations: int
    confidence: str
    options: NetworkOptions

    def statement(self) -> Statement:
        """Device, batch size and memory layout change rounding only and are left out."""
        return {
            "network": self.name,
            "weights": self.weights,
            "iterations": self.iterations,
            "precision": self.precision,
            "confidence": self.confidence,
            "padding": "replicate to multiples of 8, split on both sides",
        }

    def build(self) -> NetworkEstimator:
        """Allocate the network on its device. Raises ValueError if the weights file is no longer the one that was chosen."""
        return NetworkEstimator(self)


def choose(name: str, options: EstimatorOptions, image_size: int) -> NetworkChoice:
    """Raises ValueError on unknown options, an absent device, and weights that are not there or do not fit."""
    chosen, device = NetworkOptions.of(options.extra), pick_device(options.device)
    if options.precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {options.precision!r}")
    if options.precision == "tf32" and device.type != "cuda":
        raise ValueError(f"precision tf32 exists on CUDA devices only, not on {device}; use fp32 or bf16")
    plan = NETWORKS[name].plan
    confidence = chosen.confidence
    if confidence == "network" and not plan.has_uncertainty:
        raise ValueError(f"{name} has no uncertainty output; use confidence=round-trip or none")
    if confidence == "auto":
        confidence = "network" if plan.has_uncertainty else "none"
    source = resolve(name, options.weights)
    weights = f"random:{source.seed}" if source.path is None else fitting_checkpoint(name, source.path).identity
    iterations = chosen.iterations or plan.default_iterations
    return NetworkChoice(name, source, weights, str(device), options.precision, iterations, confidence, chosen)


class FrameTable:
    """Distinct frames of a batch of windows, each with its index."""

    def __init__(self) -> None:
        self.frames_hwc: list[NDArray[np.uint8]] = []
        self._index: dict[tuple[str, str, int], int] = {}

    def add(self, window: Window, position: int, frame_hwc: NDArray[np.uint8]) -> int:
        """Index of the frame at `position` of the window's video. A claim of identity is believed only if the pixels agree."""
        key = (window.video_id, str(window.path), position)
        known = self._index.get(key)
        if known is not None and np.array_equal(self.frames_hwc[known], frame_hwc):
            return known
        self._index[key] = len(self.frames_hwc)
        self.frames_hwc.append(frame_hwc)
        return self._index[key]


class NetworkEstimator:
    """A network of the family, ready to run.

    batch_pairs is the current limit of pairs per run; halvings counts how often memory made it shrink.
    """

    def __init__(self, choice: NetworkChoice) -> None:
        self.name = choice.name
        self.precision, self.iterations, self.confidence = choice.precision, choice.iterations, choice.confidence
        self.device = torch.device(choice.device)
        self.net = build_network(choice.name)
        self._load(choice)
        on_cpu = self.device.type == "cpu"
        options = choice.options
        self.batch_pairs = options.batch_pairs or (8 if on_cpu else 256)
        self.halvings = 0
        self._channels_last = not on_cpu if options.channels_last is None else options.channels_last
        self._prepare(options.compile)

    def _load(self, choice: NetworkChoice) -> None:
        if choice.source.path is None:
            assert choice.source.seed is not None
            load_random(self.net, choice.source.seed)
        elif load_checkpoint(self.net, choice.name, choice.source.path) != choice.weights:
            raise ValueError(f"{choice.source.path} has changed since this run began; run the command again")

    def _prepare(self, compiled: bool) -> None:
        self.net.eval().requires_grad_(False)
        fold_batch_norms(self.net)
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        self.net.to(device=self.device, dtype=PRECISIONS[self.precision], memory_format=layout)  # type: ignore[call-overload]
        if compiled:
            self.net.compile_parts()

    def estimate(self, windows: Sequence[Window]) -> list[WindowFlow]:
        """One WindowFlow per window, in order; windows may be of different videos and differ in K and size.

        Raises ValueError on frames below 121 px or too large for the memory, and the memory error itself if a
        single pair runs out of it all the same.
        """
        by_size: dict[tuple[int, ...], list[int]] = {}
        for i, window in enumerate(windows):
            by_size.setdefault(window.anchor_hwc.shape, []).append(i)
        done: dict[int, WindowFlow] = {}
        for members in by_size.values():
            done.update(zip(members, self._estimate_alike([windows[i] for i in members]), strict=True))
        return [done[i] for i in range(len(windows))]

    def _estimate_alike(self, windows: Sequence[Window]) -> list[WindowFlow]:
        jobs = [(w, k) for w, window in enumerate(windows) for k in range(len(window.offsets))]
        flows: list[NDArray[np.float32]] = []
        confidences: list[NDArray[np.float32]] = []
        directions = 2 if self.confidence == "round-trip" else 1
        rows, columns = windows[0].anchor_hwc.shape[:2]
        fitting = pairs_that_fit(rows, columns, self.device, directions)
        while len(flows) < len(jobs):
            part = jobs[len(flows) : len(flows) + min(self.batch_pairs, fitting)]
            ran = self._run_or_halve(windows, part)
            if ran is None:
                continue
            flow_pchw, confidence_phw = ran
            flows.extend(flow_pchw)
            if confidence_phw is not None:
                confidences.extend(confidence_phw)
        return list(_regroup(windows, flows, confidences))

    def _run_or_halve(
        self, windows: Sequence[Window], jobs: Sequence[tuple[int, int]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None] | None:
        """Run the jobs (window, neighbour); None after memory ran out and the batch size was halved."""
        try:
            return self._run(windows, jobs)
        except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU allocator raises it plainly
            if not _is_out_of_memory(error) or len(jobs) == 1:
                raise
        # Outside the except clause: the exception keeps the failed run's tensors alive.
        self.batch_pairs = max(1, len(jobs) // 2)
        self.halvings += 1
        log.warning("%s: %d pairs do not fit the memory of %s; going on with %d pairs per run",
                    self.name, len(jobs), self.device, self.batch_pairs)  # fmt: skip
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _run(
        self, windows: Sequence[Window], jobs: Sequence[tuple[int, int]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        table = FrameTable()
        pairs = []
        for w, k in jobs:
            window = windows[w]
            anchor = table.add(window, window.anchor_index, window.anchor_hwc)
            neighbour = table.add(window, window.neighbour_indices[k], window.neighbours_khwc[k])
            pairs.append((anchor, neighbour))
        frames_fchw = torch.from_numpy(np.stack(table.frames_hwc)).to(self.device).permute(0, 3, 1, 2)
        if not self._channels_last:
            frames_fchw = frames_fchw.contiguous()
        with torch.inference_mode(), float32_kernels(tf32_convolutions=self.precision == "tf32"):
            flow_pchw, confidence_phw = self._flow_and_confidence(frames_fchw, pairs)
        return flow_pchw.cpu().numpy(), None if confidence_phw is None else confidence_phw.cpu().numpy()

    def _flow_and_confidence(self, frames_fchw: Tensor, pairs: list[tuple[int, int]]) -> tuple[Tensor, Tensor | None]:
        if self.confidence == "round-trip":
            both = self.net(frames_fchw, pairs + [(b, a) for a, b in pairs], self.iterations).flow_p2hw
            forward, backward = both.split(len(pairs))
            return forward, round_trip_confidence(forward, backward)
        flow_p2hw, info_p4hw = self.net(frames_fchw, pairs, self.iterations)
        if self.confidence == "network":
            return flow_p2hw, sea_raft.confidence(info_p4hw)
        return flow_p2hw, None


def _regroup(
    windows: Sequence[Window], flows: Sequence[NDArray[np.float32]], confidences: Sequence[NDArray[np.float32]]
) -> Iterator[WindowFlow]:
    """Pairs in order → one WindowFlow per window."""
    start = 0
    for window in windows:
        stop = start + len(window.offsets)
        confidence_khw = np.stack(confidences[start:stop]) if confidences else None
        yield WindowFlow(np.stack(flows[start:stop]), confidence_khw)
        start = stop


def _is_out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text or "not enough memory" in text


@contextmanager
def float32_kernels(tf32_convolutions: bool) -> Iterator[None]:
    """Float32 means float32: TF32 (10 bits of mantissa, on by default in cuDNN) only where it was asked for.

    Matrix products are the correlation and its lookup, which stay exact in every precision.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = False, tf32_convolutions
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before

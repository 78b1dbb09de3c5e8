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
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.flow.consistency import round_trip_confidence
from pipeline.flow.estimator import EstimatorOptions, Window, WindowFlow
from pipeline.flow.networks import sea_raft
from pipeline.flow.networks.encoders import fold_batch_norms
from pipeline.flow.networks.memory import pairs_that_fit
from pipeline.flow.networks.table import NETWORKS
from pipeline.flow.weights.catalogue import resolve
from pipeline.flow.weights.checkpoints import load_checkpoint, load_random

log = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CONFIDENCES = ("auto", "none", "network", "round-trip")


@dataclass(frozen=True)
class NetworkOptions:
    """What `EstimatorOptions.extra` may say to a network.

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
    def of(cls, extra: Mapping[str, Any]) -> NetworkOptions:
        """Raises ValueError on an unknown name or a value out of range."""
        known = [field.name for field in fields(cls)]
        for name in extra:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
                raise ValueError(f"flow networks have no option {name!r}; {hint}")
        options = cls(
            iterations=_count("iterations", extra.get("iterations")),
            batch_pairs=_count("batch_pairs", extra.get("batch_pairs")),
            confidence=str(extra.get("confidence", "auto")),
            channels_last=_switch("channels_last", extra["channels_last"]) if "channels_last" in extra else None,
            compile=_switch("compile", extra.get("compile", False)),
        )
        if options.confidence not in CONFIDENCES:
            raise ValueError(f"confidence must be one of {', '.join(CONFIDENCES)}, not {options.confidence!r}")
        return options


def _count(name: str, value: Any) -> int | None:
    """Options from a command line are text."""
    if value is None:
        return None
    if not str(value).isdecimal() or int(value) < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    return int(value)


def _switch(name: str, value: Any) -> bool:
    text = str(value).lower()
    if text not in ("true", "false"):
        raise ValueError(f"{name} must be true or false, not {value!r}")
    return text == "true"


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
    Raises ValueError at construction on unknown options, absent device, or weights that do not fit.
    """

    def __init__(self, name: str, options: EstimatorOptions) -> None:
        self.name = name
        self.options = NetworkOptions.of(options.extra)
        self.device = _device(options.device)
        self.precision = options.precision
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        if self.precision == "tf32" and self.device.type != "cuda":
            raise ValueError(f"precision tf32 exists on CUDA devices only, not on {self.device}; use fp32 or bf16")

        source = resolve(name, options.weights)
        self.net = NETWORKS[name].build()
        if source.path is not None:
            self.weights = load_checkpoint(self.net, name, source.path)
        else:
            assert source.seed is not None
            self.weights = load_random(self.net, source.seed)

        self.iterations = self.options.iterations or self.net.default_iterations
        self.confidence = self._which_confidence()
        on_cpu = self.device.type == "cpu"
        self.batch_pairs = self.options.batch_pairs or (8 if on_cpu else 256)
        self.halvings = 0
        self._channels_last = not on_cpu if self.options.channels_last is None else self.options.channels_last
        self._prepare()

    def _which_confidence(self) -> str:
        own = isinstance(self.net, sea_raft.SeaRaft)
        if self.options.confidence == "network" and not own:
            raise ValueError(f"{self.name} has no uncertainty output; use confidence=round-trip or none")
        if self.options.confidence == "auto":
            return "network" if own else "none"
        return self.options.confidence

    def _prepare(self) -> None:
        self.net.eval().requires_grad_(False)
        fold_batch_norms(self.net)
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        self.net.to(device=self.device, dtype=PRECISIONS[self.precision], memory_format=layout)  # type: ignore[call-overload]
        if self.options.compile:
            self.net.compile_parts()

    def settings(self) -> Mapping[str, Any]:
        """What shapes the flow. Device, batch size and memory layout change rounding only and are left out."""
        return {
            "network": self.name,
            "weights": self.weights,
            "iterations": self.iterations,
            "precision": self.precision,
            "confidence": self.confidence,
            "padding": "replicate to multiples of 8, split on both sides",
        }

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


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as absent:
        reason = str(absent).split("\n", 1)[0]
        raise ValueError(f"device {name!r} cannot be used here: {reason}") from absent
    return device


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

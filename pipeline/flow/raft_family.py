"""The networks of the RAFT family as flow estimators: options → a checked choice → a `PairNetwork` on its device.

What comes in over the command line is checked here; batching, sharing of frames and memory are in `batching.py`, the
networks themselves in `networks/`, their files in `weights/`.

Shape legend: F frames, P pairs, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.device import pick_device
from pipeline.flow.batching import PairEstimator, PairFlow
from pipeline.flow.consistency import round_trip_confidence
from pipeline.flow.estimator import EstimatorOptions
from pipeline.flow.networks import sea_raft
from pipeline.flow.networks.build import build_network
from pipeline.flow.networks.encoders import fold_batch_norms
from pipeline.flow.networks.memory import pair_bytes
from pipeline.flow.networks.network import MIN_SIDE_PX, FlowNetwork
from pipeline.flow.networks.table import NETWORKS
from pipeline.flow.networks.upsample import STRIDE
from pipeline.flow.options import as_count, as_switch, check_names
from pipeline.flow.precision_modes import PRECISIONS, check_precision, float32_kernels
from pipeline.flow.weights.catalogue import WeightSource, resolve
from pipeline.flow.weights.checkpoints import fitting_checkpoint, load_checkpoint, load_random
from shards.schema import Statement

CONFIDENCES = ("auto", "none", "network", "round-trip")


@dataclass(frozen=True)
class NetworkOptions:
    """What `--flow-option` may say to a network.

    iterations: None takes the network's own (RAFT 20, SEA-RAFT 4, SMURF 12). batch_pairs: pairs per run, None
    takes 8 on a CPU and 256 elsewhere. confidence: "network" is SEA-RAFT's own uncertainty, "round-trip" the
    forward-backward consistency (twice the work), "auto" the network's own where it has one, else none, or the round trip where
    confidence is to be kept. channels_last:
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

    iterations and confidence are what the run uses; in `options` they may be open. reverse: whether the way back is returned, which takes
    as long as the flow unless confidence is the round trip and needs it anyway.
    """

    name: str
    source: WeightSource
    weights: str
    device: str
    precision: str
    iterations: int
    confidence: str
    options: NetworkOptions
    reverse: bool = False
    smallest_side_px = MIN_SIDE_PX - STRIDE + 1  # padded to a multiple of the stride

    def statement(self) -> Statement:
        """Device, batch size, memory layout, compile and threads change rounding only and are left out."""
        return {
            "network": self.name,
            "weights": self.weights,
            "iterations": self.iterations,
            "precision": self.precision,
            "confidence": self.confidence,
            "padding": "replicate to multiples of 8, split on both sides",
        }

    def build(self) -> PairEstimator:
        """Allocate the network on its device. Raises ValueError if the weights file is no longer the one that was chosen."""
        return PairEstimator(self.name, RaftFamilyNetwork(self), self.batch_pairs)

    @property
    def batch_pairs(self) -> int:
        """Pairs per run: what was asked for, or 8 on a CPU and 256 elsewhere."""
        return self.options.batch_pairs or (8 if torch.device(self.device).type == "cpu" else 256)

    def on_device(self, device: str) -> NetworkChoice:
        """The same network elsewhere. Raises ValueError for a device that is not here."""
        return replace(self, device=str(pick_device(device)))


def choose(name: str, options: EstimatorOptions, image_size: int) -> NetworkChoice:
    """Raises ValueError on unknown options, an absent device, and weights that are not there or do not fit."""
    chosen, device = NetworkOptions.of(options.extra), pick_device(options.device)
    check_precision(options.precision, device)
    plan = NETWORKS[name].plan
    confidence = chosen.confidence
    if confidence == "network" and not plan.has_uncertainty:
        raise ValueError(f"{name} has no uncertainty output; use confidence=round-trip or none")
    if confidence == "auto":
        without = "round-trip" if options.keep_confidence else "none"
        confidence = "network" if plan.has_uncertainty else without
    source = resolve(name, options.weights)
    weights = f"random:{source.seed}" if source.path is None else fitting_checkpoint(name, source.path).identity
    iterations = chosen.iterations or plan.default_iterations
    run = (options.precision, iterations, confidence, chosen, options.keep_reverse)
    return NetworkChoice(name, source, weights, str(device), *run)


class RaftFamilyNetwork:
    """The `PairNetwork` of a choice: the module on its device, with its precision and its kind of confidence."""

    def __init__(self, choice: NetworkChoice) -> None:
        self.device = torch.device(choice.device)
        self._tf32 = choice.precision == "tf32"
        self._iterations, self._confidence, self._reverse = choice.iterations, choice.confidence, choice.reverse
        self._channels_last = _channels_last(choice)
        self.net = build_network(choice.name)
        _load(self.net, choice)
        self.net.eval().requires_grad_(False)
        fold_batch_norms(self.net)
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        self.net.to(device=self.device, dtype=PRECISIONS[choice.precision], memory_format=layout)  # type: ignore[call-overload]
        if choice.options.compile:
            self.net.compile_parts()

    def pair_bytes(self, rows: int, columns: int) -> int:
        """The measured bound of the family."""
        return pair_bytes(rows, columns, directions=2 if self._both_ways else 1)

    @property
    def _both_ways(self) -> bool:
        return self._reverse or self._confidence == "round-trip"

    def run(self, frames_fhwc: NDArray[np.uint8], pairs: Sequence[tuple[int, ...]]) -> PairFlow:
        """Raises ValueError on frames below 121 px."""
        frames_fchw = torch.from_numpy(frames_fhwc).to(self.device).permute(0, 3, 1, 2)
        if not self._channels_last:
            frames_fchw = frames_fchw.contiguous()
        with torch.inference_mode(), float32_kernels(tf32_convolutions=self._tf32):
            return self._estimate(frames_fchw, pairs)

    def _estimate(self, frames_fchw: Tensor, pairs: Sequence[tuple[int, ...]]) -> PairFlow:
        way_back = [(b, a) for a, b in pairs] if self._both_ways else []
        both_2hw, info_4hw = self.net(frames_fchw, [*pairs, *way_back], self._iterations)
        flow_p2hw, back_2hw = both_2hw.split((len(pairs), len(way_back)))
        confidence_phw = None
        if self._confidence == "round-trip":
            confidence_phw = round_trip_confidence(flow_p2hw, back_2hw).cpu().numpy()
        elif self._confidence == "network":
            confidence_phw = sea_raft.confidence(info_4hw[: len(pairs)]).cpu().numpy()
        return PairFlow(flow_p2hw.cpu().numpy(), confidence_phw, back_2hw.cpu().numpy() if self._reverse else None)


def _channels_last(choice: NetworkChoice) -> bool:
    if choice.options.channels_last is None:
        return torch.device(choice.device).type != "cpu"
    return choice.options.channels_last


def _load(net: FlowNetwork, choice: NetworkChoice) -> None:
    if choice.source.path is None:
        assert choice.source.seed is not None
        load_random(net, choice.source.seed)
    elif load_checkpoint(net, choice.name, choice.source.path) != choice.weights:
        raise ValueError(f"{choice.source.path} has changed since this run began; run the command again")

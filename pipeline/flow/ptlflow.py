"""Any network of the package ptlflow as a flow estimator, called `ptlflow:NAME` (extra `ptlflow`).

    frames [F, H, W, 3] RGB ─▶ [P, T, 3, H, W] BGR in 0..1 ─▶ the model, which pads and normalises as it likes ─▶ flow [P, 2, H, W] pixels

T is 2, or 3 for networks that take the frame on the other side of the anchor too. What exists and how it is made is in
`weights/ptlflow_zoo.py`; batches, shared frames and memory are those of `batching.py`.

Options (`--flow-option NAME=VALUE`): `confidence` (`auto`, `none`, `round-trip`), `batch_pairs` (4 on a CPU, 64 elsewhere), `iterations`,
and whatever the model's constructor takes.

Shape legend: F frames, P pairs, T frames of a pair, H W rows and columns.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.device import pick_device
from common.memory import is_out_of_memory
from pipeline.flow.batching import PairEstimator, PairFlow
from pipeline.flow.consistency import round_trip_confidence
from pipeline.flow.estimator import EstimatorOptions
from pipeline.flow.networks.memory import pair_bytes
from pipeline.flow.options import as_count
from pipeline.flow.precision_modes import PRECISIONS, check_precision, float32_kernels
from pipeline.flow.weights import ptlflow_zoo
from pipeline.flow.weights.ptlflow_zoo import PREFIX, ModelSpec
from shards.schema import Statement

CONFIDENCES = ("auto", "none", "round-trip")
_OWN_OPTIONS = ("confidence", "batch_pairs")
_MEMORY_OF_RAFT = 4
"""How much more memory a pair may take than in the RAFT family: a guess on the safe side. On CUDA a batch is halved besides."""
_PROBE_SIDES_PX = (128, 256)


@dataclass(frozen=True)
class PtlflowChoice:
    """A model of ptlflow with everything that decides how it runs. weights: "sha256:…" of its state, or "random:SEED"."""

    spec: ModelSpec
    package_version: str
    weights: str
    device: str
    precision: str
    round_trip: bool
    batch_asked: int | None = None
    reverse: bool = False

    @property
    def smallest_side_px(self) -> int:
        """As far as it is known: what the model's coarsest level needs."""
        return ptlflow_zoo.SMALLEST_SIDES_PX.get(self.spec.name, _PROBE_SIDES_PX[0])

    @property
    def name(self) -> str:
        """With the prefix."""
        return f"{PREFIX}{self.spec.name}"

    @property
    def surrounded(self) -> bool:
        """Whether the model takes the frame on the other side of the anchor too."""
        return self.spec.name in ptlflow_zoo.SURROUNDED

    def statement(self) -> Statement:
        """Device and batch size change rounding only and are left out."""
        return {
            "network": self.spec.name,
            "ptlflow": self.package_version,
            "weights": self.weights,
            "precision": self.precision,
            "confidence": "round-trip" if self.round_trip else "none",
            "frames": 3 if self.surrounded else 2,
            **{f"option_{name}": text for name, text in self.spec.arguments},
        }

    def build(self) -> PairEstimator:
        """The model on its device, tried once. Raises ValueError if its weights have changed, or what it gives is no flow."""
        return PairEstimator(self.name, PtlflowNetwork(self), self.batch_pairs, opposite=self.surrounded)

    @property
    def batch_pairs(self) -> int:
        """Pairs per run: what was asked for, or 4 on a CPU and 64 elsewhere."""
        return self.batch_asked or (4 if torch.device(self.device).type == "cpu" else 64)

    def on_device(self, device: str) -> PtlflowChoice:
        """The same model elsewhere. Raises ValueError for a device that is not here."""
        return replace(self, device=str(pick_device(device)))


def choose(name: str, options: EstimatorOptions, image_size: int) -> PtlflowChoice:
    """Raises ValueError on a missing package, an unknown or unsuitable model, options it does not have, and weights that do not fit."""
    model = name.removeprefix(PREFIX)
    ptlflow_zoo.check_model(model)
    device = pick_device(options.device)
    check_precision(options.precision, device)
    asked = options.extra.get("confidence", "auto")
    if asked not in CONFIDENCES:
        raise ValueError(f"confidence must be one of {', '.join(CONFIDENCES)}, not {asked!r}")
    round_trip = asked == "round-trip" or (asked == "auto" and options.keep_confidence)
    if model in ptlflow_zoo.SURROUNDED and (round_trip or options.keep_reverse):
        what = "--keep-reverse" if options.keep_reverse else "--keep-confidence (or confidence=round-trip)"
        raise ValueError(
            f"{name} takes the frames before and after the anchor, and a window holds none beyond its neighbours: leave {what} out"
        )
    batch = as_count("batch_pairs", options.extra["batch_pairs"]) if "batch_pairs" in options.extra else None
    arguments = tuple(sorted((key, text) for key, text in options.extra.items() if key not in _OWN_OPTIONS))
    spec = ModelSpec(model, ptlflow_zoo.resolve(model, options.weights), arguments)
    weights = _identity(spec, ptlflow_zoo.make(spec))
    run = (str(device), options.precision, round_trip, batch, options.keep_reverse)
    return PtlflowChoice(spec, ptlflow_zoo.version(), weights, *run)


def _identity(spec: ModelSpec, model: torch.nn.Module) -> str:
    return ptlflow_zoo.identity(model) if spec.source.seed is None else f"random:{spec.source.seed}"


class PtlflowNetwork:
    """The `PairNetwork` of a choice. A pair may name a third frame, the one on the other side of its anchor."""

    def __init__(self, choice: PtlflowChoice) -> None:
        self.choice, self.device = choice, torch.device(choice.device)
        self.model = ptlflow_zoo.make(choice.spec)
        if _identity(choice.spec, self.model) != choice.weights:
            raise ValueError(f"{choice.spec.source.path} has changed since this run began; run the command again")
        self.model.to(self.device)
        self._try()

    def _try(self) -> None:
        """One pair of noise, a larger one where that fails: some models cannot take small frames. Raises ValueError where it can take
        neither, or gives no flow, or none that is finite."""
        for side in _PROBE_SIDES_PX:
            complaint = self._complaint(side)
            if complaint is None:
                return
        raise ValueError(complaint)

    def _complaint(self, side: int) -> str | None:
        choice, frames = self.choice, 3 if self.choice.surrounded else 2
        noise = np.random.default_rng(0).integers(0, 256, (frames, side, side, 3), np.uint8)
        try:
            flow = self.run(noise, [tuple(range(frames))]).flow_p2hw
        except ValueError as no_flow:
            return str(no_flow)
        except Exception as error:  # whatever the model's code meets
            if is_out_of_memory(error):
                raise
            words = " ".join(str(error).split())[:200]
            return f"{choice.name} cannot run on {frames} frames here ({type(error).__name__}: {words})"
        if np.isfinite(flow).all():
            return None
        way_out = (
            "use --precision fp32" if choice.precision != "fp32" else "its weights are damaged or not meant for it"
        )
        return f"{choice.name} gives flow that is not finite in {choice.precision}; {way_out}"

    def pair_bytes(self, rows: int, columns: int) -> int:
        """A guess: several times what a network of the RAFT family takes."""
        return _MEMORY_OF_RAFT * pair_bytes(rows, columns, directions=2 if self._both_ways else 1)

    @property
    def _both_ways(self) -> bool:
        return self.choice.reverse or self.choice.round_trip

    def run(self, frames_fhwc: NDArray[np.uint8], pairs: Sequence[tuple[int, ...]]) -> PairFlow:
        """Flow that is not finite is handed on: whoever stores flow counts it. Raises ValueError for output that is no flow of pairs."""
        bgr_f3hw = torch.from_numpy(frames_fhwc).to(self.device).permute(0, 3, 1, 2).flip(1).float() / 255
        # The order in time: before the anchor, the anchor, after it. Of two frames the anchor comes first.
        in_time = [(pair[2], pair[0], pair[1]) if len(pair) == 3 else pair for pair in pairs]
        way_back = [(b, a) for a, b in pairs] if self._both_ways else []
        images_pt3hw = bgr_f3hw[torch.tensor([*in_time, *way_back], device=self.device)]
        with torch.inference_mode(), float32_kernels(self.choice.precision == "tf32"), self._autocast():
            with redirect_stdout(sys.stderr):  # some models print remarks
                both_2hw = self._flow(self.model({"images": images_pt3hw}), images_pt3hw)
            flow_p2hw, back_2hw = both_2hw.split((len(pairs), len(way_back)))
            confidence_phw = (
                round_trip_confidence(flow_p2hw, back_2hw).cpu().numpy() if self.choice.round_trip else None
            )
        return PairFlow(
            flow_p2hw.cpu().numpy(), confidence_phw, back_2hw.cpu().numpy() if self.choice.reverse else None
        )

    def _autocast(self) -> AbstractContextManager[object]:
        """Weights stay float32: which layers bear half precision is for autocast to know, not for the model's author to have provided."""
        kind = PRECISIONS[self.choice.precision]
        return nullcontext() if kind == torch.float32 else torch.autocast(self.device.type, kind)

    def _flow(self, output: object, images_pt3hw: Tensor) -> Tensor:
        flows = output.get("flows") if isinstance(output, Mapping) else None
        name, pairs, (rows, columns) = self.choice.name, len(images_pt3hw), images_pt3hw.shape[-2:]
        if not isinstance(flows, Tensor):
            raise ValueError(
                f"{name} gives no tensor 'flows' but {type(output).__name__}; it is no model of ptlflow's interface"
            )
        if flows.ndim == 5 and flows.shape[1] > 1:
            raise ValueError(
                f"{name} gives {flows.shape[1]} flows for a pair: it is a network of several frames, which is not supported"
            )
        if tuple(flows.shape) != (pairs, 1, 2, rows, columns):
            raise ValueError(
                f"{name} gives flows of shape {list(flows.shape)} for {pairs} pairs of {columns}×{rows} px, "
                f"not {[pairs, 1, 2, rows, columns]}"
            )
        return flows[:, 0].float()

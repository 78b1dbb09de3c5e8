"""What features cost: parameters, multiply-accumulates, pictures per second and memory of every source, on this device.

No data comes in: a fixed random picture goes through each source at 224, 448 and 1024 px, from uint8 pixels to its features;
figures go back as one row per source (FlowFeat, NeurIPS 2025, Table 7). Sizes are rounded down to what the encoder takes (1008
for patch 14). `metrics/cost.py` says what is counted. FlowFeat++ has the features of FlowFeat and refines logits, so it has no
row of its own.

A size that would take more than `--efficiency-budget` seconds, judged by the size before and the number of pixels, is left out;
the row says so. Caches of features are passed by.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from probes.metrics.cost import macs, peak_bytes, seconds
from probes.options import option
from probes.paper import references
from probes.sources.features import Features, Source, features_of
from probes.sources.identity import parameter_count
from probes.task import Context, Metric, Noun, Reference, Row, Settings, Task

log = logging.getLogger(__name__)
SIZES_PX = (224, 448, 1024)
PASSES = 4
"""Of the network, at least: counting, memory, a warm-up and a timed one."""


def _metrics() -> tuple[Metric, ...]:
    columns = [Metric("parameters", "parameters", higher_is_better=False, decimals=2, suffix="M")]
    for size in SIZES_PX:
        columns.append(Metric(f"macs_{size}", f"MACs at {size} px", higher_is_better=False, decimals=2, suffix="G"))
    for size in SIZES_PX:
        columns.append(Metric(f"rate_{size}", f"pictures/s at {size} px", decimals=2))
    for size in SIZES_PX:
        columns.append(
            Metric(f"memory_{size}", f"memory at {size} px", higher_is_better=False, suffix="MB", decimals=0)
        )
    return tuple(columns)


@dataclass(frozen=True)
class Efficiency(Task):
    """The probe as asked for on the command line."""

    name: ClassVar = "efficiency"
    title: ClassVar = "Cost of the features"
    description: ClassVar = (
        "One picture through each source, from pixels to features, on this device. MACs: multiply-accumulates of matrix products, "
        "convolutions and attention. Memory: weights and the most that tensors take at once. A dash: the size would have taken longer "
        "than --efficiency-budget; the CSV says how long."
    )
    unit: ClassVar = Noun("device", "devices")
    part: ClassVar = Noun("measurement", "measurements")
    step: ClassVar = Noun("size", "sizes")
    metrics: ClassVar = _metrics()
    headline: ClassVar = "rate_224"
    timed: ClassVar = True
    embedded: ClassVar = {"wanted": True, "budget_s": 5.0}

    budget_s: float = field(
        default=20.0, metadata=option("--efficiency-budget", float, "Seconds for a size of a source at most.")
    )
    wanted: bool = field(
        default=False, metadata=option("--efficiency", bool, "Measure the cost of the features with `all` too.")
    )

    def __post_init__(self) -> None:
        if not self.budget_s > 0:
            raise ValueError(f"--efficiency-budget {self.budget_s} must be above 0")

    def settings(self) -> Settings:
        return {"batch": 1, "budget_s": self.budget_s}

    def has_data(self) -> bool:
        """It needs none, and takes its time: `all` leaves it out unless it is asked for."""
        return self.wanted

    def units(self) -> list[ThisDevice]:
        return [ThisDevice(self)]

    @classmethod
    def references(cls, settings: Settings, units: int) -> Sequence[Reference]:
        return references(
            cls.name, cls.metrics, settings, "DINO2-S14 at 224 px; MACs compare on any device, rates on the paper's."
        )


@dataclass(frozen=True)
class ThisDevice:
    """The one unit."""

    task: Efficiency
    name: ClassVar = "this device"
    facts: ClassVar[Mapping[str, int]] = {}

    @property
    def steps(self) -> int:
        return len(SIZES_PX)

    def fingerprint(self) -> str:
        return "random picture"

    def evaluate(self, sources: Sequence[Source], context: Context) -> dict[str, list[Row]]:
        return {source.name: [self._row(replace(source, store=None), context)] for source in sources}

    def _row(self, source: Source, context: Context) -> Row:
        parameters = parameter_count(source.modules)
        weights = sum(
            one.nbytes for module in source.modules for one in {id(p): p for p in module.parameters()}.values()
        )
        values, notes = {"parameters": parameters / 1e6}, ["batch 1"]
        before: tuple[int, float] | None = None
        for size in SIZES_PX:
            side = size // source.encoder.size_multiple * source.encoder.size_multiple
            least_s = 0.0 if before is None else PASSES * before[1] * (side / before[0]) ** 2
            if side == 0 or least_s > self.task.budget_s:
                over = f"at least {least_s:.2g} s, over the budget of {self.task.budget_s:g} s"
                reason = over if side else "too small for the encoder"
                told = f"{size} px left out, {reason}"
                log.warning("%s: %s", source.name, told)
                notes.append(told)
                context.step(1)
                continue
            run = _pass(source, side, context)
            values[f"macs_{size}"] = macs(run) / 1e9
            values[f"memory_{size}"] = (weights + peak_bytes(run, context.device)) / 1e6
            taken = seconds(run, context.device)
            values[f"rate_{size}"] = 1 / taken
            before = side, taken
            context.step(1)
        return Row("; ".join(notes), values)


def _pass(source: Source, side_px: int, context: Context) -> Callable[[], Features]:
    """One picture through a source."""
    generator = torch.Generator().manual_seed(context.seed)
    image: Tensor = torch.randint(0, 256, (1, side_px, side_px, 3), dtype=torch.uint8, generator=generator)
    image = image.to(context.device)

    @torch.no_grad()
    def run() -> Features:
        ((_, features),) = features_of([source], image)
        return features

    return run

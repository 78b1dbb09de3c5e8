"""What a flow estimator is, and how one is chosen by name.

    choose(name, options) ─▶ EstimatorChoice ── statement() ─▶ the manifest of a shard set
                             checked, cheap,  ── build() ────▶ FlowEstimator, in whatever process runs it
                             can be pickled

Everything that can be refused is refused by `choose`: the command line calls it once, before anything is written or a
worker is started. Only `build` allocates. An estimator turns a batch of windows (of different videos, if the engine so
likes) into K flow fields each, anchor → neighbour, in pixels of the window's square.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Protocol, runtime_checkable

from common.command import nearest
from pipeline.flow.networks.table import NETWORKS
from pipeline.window import Window, WindowFlow
from shards.schema import Statement


class FlowEstimator(Protocol):
    """Windows in, flow out."""

    name: str

    def estimate(self, windows: Sequence[Window]) -> list[WindowFlow]:
        """One WindowFlow per window, in order."""
        ...


class UnfitVideo(ValueError):
    """Raised by an estimator for a window whose video lacks what others have: no fault of its own, whichever windows come first."""


class EstimatorChoice(Protocol):
    """An estimator with all its settings, checked but not built: a frozen dataclass that can be pickled."""

    @property
    def name(self) -> str:
        """What the command line calls it."""
        ...

    @property
    def smallest_side_px(self) -> int:
        """The smallest square it can be given; whoever cuts windows refuses smaller ones before anything is written."""
        ...

    def statement(self) -> Statement:
        """All that shapes the flow, incl. `weights` ("sha256:…", "random:SEED" or None). Goes into the manifest beside the name."""
        ...

    def build(self) -> FlowEstimator:
        """Make it ready to run, on its device. Raises ValueError where a weights file has changed since the choice."""
        ...


@runtime_checkable
class PairsTogether(EstimatorChoice, Protocol):
    """The choice of a network that runs many pairs at once, and whose rounding depends on how many."""

    @property
    def batch_pairs(self) -> int:
        """Pairs per run that it wants."""
        ...

    @property
    def device(self) -> str:
        """Where it runs."""
        ...

    def on_device(self, device: str) -> EstimatorChoice:
        """The same network elsewhere; the statement stays."""
        ...


@dataclass(frozen=True)
class EstimatorOptions:
    """What the command line can say about any estimator; an estimator refuses what it has no use for.

    extra: options of one estimator as text, by name; `choose` parses them. keep_confidence: confidence is to be stored, so an estimator
    that can give it does, unless its options say otherwise. keep_reverse: flow from neighbour to anchor is to be stored too.
    """

    weights: str | None = None
    device: str = "cpu"
    precision: str = "fp32"
    extra: Mapping[str, str] = field(default_factory=dict)
    keep_confidence: bool = False
    keep_reverse: bool = False


Chooser = Callable[[str, EstimatorOptions, int], EstimatorChoice]
"""(name, options, image_size) → choice; raises ValueError. This is what an entry of ESTIMATORS names."""

# Name → "module:function" of its Chooser, imported when asked for: networks need torch, dis needs OpenCV.
ESTIMATORS: dict[str, str] = {
    "dis": "pipeline.flow.dis:choose",
    "truth": "pipeline.flow.truth:choose",
    **dict.fromkeys(NETWORKS, "pipeline.flow.raft_family:choose"),
}
FAMILIES: dict[str, str] = {"ptlflow": "pipeline.flow.ptlflow:choose"}
"""The same for names of two parts, FAMILY:NAME, whose second parts are the family's own."""


def choose(name: str, options: EstimatorOptions | None = None, *, image_size: int = 448) -> EstimatorChoice:
    """The estimator of that name with these options, checked. image_size: side of the centre square that windows are cut from.

    Raises ValueError on an unknown name, an option that the estimator has no use for or a value out of range, a device
    that is not here, and weights that are missing or do not fit.
    """
    family, colon, _ = name.partition(":")
    where = FAMILIES.get(family) if colon else ESTIMATORS.get(name)
    if where is None:
        known = sorted([*ESTIMATORS, *(f"{other}:NAME" for other in FAMILIES)])
        raise ValueError(f"no flow estimator is called {name!r}; {nearest(name, known)}")
    chooser: Chooser = resolve_name(where)
    return chooser(name, options or EstimatorOptions(), image_size)


def create(name: str, options: EstimatorOptions | None = None) -> FlowEstimator:
    """Choose and build."""
    return choose(name, options).build()

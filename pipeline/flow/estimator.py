"""What a flow estimator takes and returns, and the registry that finds one by name.

A window is an anchor frame with its K neighbours, already cropped to the square that
flow is computed on. An estimator turns a batch of windows (of different videos, if the
engine so likes) into K flow fields each, anchor → neighbour, in pixels of that square.

Shape legend: K neighbours, S side of the flow square, C = 2 channels (dx right, dy down).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """An anchor frame and its neighbours, as the flow network sees them.

    anchor_hwc: [S, S, 3] uint8 RGB. neighbours_khwc: [K, S, S, 3] uint8 RGB.
    offsets: K signed nominal offsets (-2, -1, +1, +2). video_id/path name the source;
    frame indices are positions in decoding order, times_s their presentation time stamps.
    """

    video_id: str
    path: Path
    offsets: tuple[int, ...]
    anchor_index: int
    neighbour_indices: tuple[int, ...]
    anchor_time_s: float
    neighbour_times_s: tuple[float, ...]
    anchor_hwc: NDArray[np.uint8]
    neighbours_khwc: NDArray[np.uint8]


@dataclass(frozen=True)
class WindowFlow:
    """flow_kchw: [K, 2, S, S] float32 pixels of the S square; confidence_khw: [K, S, S] float32 in [0, 1] or None.

    An estimator may return non-finite values (it must not hide them); the engine counts such pairs and never stores them.
    """

    flow_kchw: NDArray[np.float32]
    confidence_khw: NDArray[np.float32] | None = None


class FlowEstimator(Protocol):
    """Anything with a name, a statement of what shapes its output, and a batched estimate."""

    name: str

    def settings(self) -> Mapping[str, Any]:
        """JSON-able settings that shape the output, incl. `weights` (sha256, "random:SEED" or None). Goes into the manifest."""
        ...

    def estimate(self, windows: Sequence[Window]) -> list[WindowFlow]:
        """One WindowFlow per window, in order."""
        ...


@dataclass(frozen=True)
class EstimatorOptions:
    """What the command line can say about any estimator; an estimator refuses what it has no use for.

    image_size: side of the centre square that the flow square was resized from, pixels (not a user's choice here).
    extra: options of one estimator, by name.
    """

    weights: str | None = None
    device: str = "cpu"
    precision: str = "fp32"
    image_size: int = 448
    extra: Mapping[str, Any] = field(default_factory=dict)


_REGISTRY: dict[str, Callable[[EstimatorOptions], FlowEstimator]] = {}


def register(
    name: str,
) -> Callable[[Callable[[EstimatorOptions], FlowEstimator]], Callable[[EstimatorOptions], FlowEstimator]]:
    """Decorator for a factory `options -> estimator`. The factory may import heavy packages; registration must not."""

    def add(factory: Callable[[EstimatorOptions], FlowEstimator]) -> Callable[[EstimatorOptions], FlowEstimator]:
        if name in _REGISTRY:
            raise ValueError(f"flow estimator {name!r} is registered twice")
        _REGISTRY[name] = factory
        return factory

    return add


def available() -> list[str]:
    """Names that `create` takes."""
    return sorted(_REGISTRY)


def create(name: str, options: EstimatorOptions | None = None) -> FlowEstimator:
    """Build an estimator. Raises ValueError naming the nearest known names when `name` is not registered."""
    if name not in _REGISTRY:
        near = get_close_matches(name, _REGISTRY, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(available())}"
        raise ValueError(f"no flow estimator is called {name!r}; {hint}")
    return _REGISTRY[name](options or EstimatorOptions())


# Modules that register estimators; imported only when a name must be resolved, so that commands start fast.
_MODULES = ("pipeline.flow.dis", "pipeline.flow.truth", "pipeline.flow.networks.table")


def load_all() -> None:
    """Import every module that registers an estimator."""
    for module in _MODULES:
        importlib.import_module(module)

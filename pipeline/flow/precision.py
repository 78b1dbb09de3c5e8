"""The same windows in every numerical mode, against float32: end-point difference and speed.

Frames are a moving texture unless images are given; weights may be random, which measures
the arithmetic but not the accuracy of a trained network.

Shape legend: K neighbours, S side of the square.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.flow.estimator import EstimatorOptions, create
from pipeline.flow.evaluate import pair_window, read_frame
from pipeline.window import Window, WindowFlow

_OFFSETS = (-2, -1, 1, 2)


@dataclass(frozen=True)
class ModeDifference:
    """One mode against float32. EPE in pixels over all pixels and pairs; speed includes transfers, not the first call."""

    mode: str
    mean_epe_px: float
    p99_epe_px: float
    max_epe_px: float
    mean_motion_px: float
    pairs_per_s: float


def moving_texture(side_px: int, seed: int = 0) -> Window:
    """A smooth random texture that shifts by (1.5, -0.75) px per frame and swells a little: K = 4."""
    rng = np.random.default_rng(seed)
    waves = rng.uniform(-1, 1, (24, 2)) * 2 * np.pi / np.geomspace(6, 80, 24)[:, None]
    phase, weight = rng.uniform(0, 2 * np.pi, (24, 3)), np.geomspace(4, 14, 24)
    y, x = np.mgrid[:side_px, :side_px].astype(np.float64)

    def frame(t: int) -> NDArray[np.uint8]:
        swell = 1 - 0.004 * t
        u, v = (x - side_px / 2) * swell - 1.5 * t, (y - side_px / 2) * swell + 0.75 * t
        total = np.full((side_px, side_px, 3), 127.5)
        for (fx, fy), shift, strength in zip(waves, phase, weight, strict=True):
            total += strength * np.sin((fx * u + fy * v)[..., None] + shift)
        return np.clip(total, 0, 255).astype(np.uint8)

    neighbours_khwc = np.stack([frame(t) for t in _OFFSETS])
    return Window(
        "texture", Path("texture"), _OFFSETS, 2, (0, 1, 3, 4), 0.0, (-2.0, -1.0, 1.0, 2.0), frame(0), neighbours_khwc
    )


def compare(
    network: str,
    weights: str | None,
    device: str,
    precisions: tuple[str, ...],
    side_px: int,
    images: tuple[Path, Path] | None,
    compiled: bool,
) -> list[ModeDifference]:
    """Run every mode; the first row is float32 against itself, run again. Raises ValueError as `create` does."""
    if images is None:
        windows = [moving_texture(side_px)]
    else:
        windows = [pair_window(read_frame(images[0]), read_frame(images[1]), images[0])]
    base = EstimatorOptions(weights=weights, device=device)
    wanted = precisions or (("bf16",) if device == "cpu" else ("tf32", "bf16", "fp16"))
    modes: list[tuple[str, str, dict[str, str]]] = [
        ("fp32", "fp32", {}),
        ("fp32 channels_last", "fp32", {"channels_last": "true"}),
    ]
    for precision in wanted:
        modes.append((precision, precision, {"channels_last": "false"}))
        modes.append((f"{precision} channels_last", precision, {"channels_last": "true"}))
    if compiled:
        modes.append(("fp32 compiled", "fp32", {"compile": "true"}))
        modes += [(f"{precision} compiled", precision, {"compile": "true"}) for precision in wanted]

    reference = create(network, base).estimate(windows)
    rows = []
    for mode, precision, extra in modes:
        flows, seconds = _timed(network, replace(base, precision=precision, extra=extra), windows)
        rows.append(_difference(mode, flows, reference, seconds))
    return rows


def _timed(network: str, options: EstimatorOptions, windows: list[Window]) -> tuple[list[WindowFlow], float]:
    """The second call's result and time: the first one compiles, picks kernels, warms caches."""
    estimator = create(network, options)
    estimator.estimate(windows)
    start = time.perf_counter()
    flows = estimator.estimate(windows)
    return flows, time.perf_counter() - start


def _difference(mode: str, flows: list[WindowFlow], reference: list[WindowFlow], seconds: float) -> ModeDifference:
    ours = np.concatenate([flow.flow_kchw for flow in flows])
    theirs = np.concatenate([flow.flow_kchw for flow in reference])
    error = np.linalg.norm((ours - theirs).astype(np.float64), axis=1)
    motion = np.linalg.norm(theirs.astype(np.float64), axis=1)
    return ModeDifference(
        mode,
        float(error.mean()),
        float(np.percentile(error, 99)),
        float(error.max()),
        float(motion.mean()),
        len(ours) / seconds,
    )

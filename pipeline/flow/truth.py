"""Exact flow of synthetic videos: no estimation, the scene that drew the video is asked.

A window comes in; the scene record beside its video (`<name>.scene.json`, or `scene.json` in or beside a frame
folder) rebuilds the scene, and the window's frame indices say which flow is wanted, on the very square that the
window was cut to. The pixels of the window are not looked at, so compression of the video does not matter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from pipeline.flow.estimator import EstimatorOptions, UnfitVideo
from pipeline.synth.scene import GENERATOR_VERSION, Scene, square_grid
from pipeline.window import Window, WindowFlow
from shards.schema import Statement

SCENE_ENDING = "scene.json"
"""Of the names of scene records."""
_SCENES_KEPT = 8  # windows of one video arrive together


def scene_path(video: Path) -> Path:
    """The scene record of a video file or frame folder. Raises ValueError naming the places that were looked at; UnfitVideo where other
    videos of its folder have a record."""
    beside = video.with_name(f"{video.stem if video.is_file() else video.name}.{SCENE_ENDING}")
    candidates = [video / SCENE_ENDING, beside] if video.is_dir() else [beside]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = " or ".join(str(c) for c in candidates)
    if _holds_scenes(video.parent):
        raise UnfitVideo(
            f"{video}: its scene record is missing (there is no {looked}); put it back or generate the video again, then rerun with "
            "--retry-rejected flow_failed"
        )
    raise ValueError(
        f"{video}: exact flow exists only for synthetic videos, and there is no {looked}; "
        "choose another flow estimator, or make videos with `python -m pipeline synth`"
    )


@lru_cache(_SCENES_KEPT)  # a folder may hold many videos without one
def _holds_scenes(folder: Path) -> bool:
    """Whether a folder of videos or frame folders has a scene record of any of them."""
    return any(any(folder.glob(pattern)) for pattern in (f"*{SCENE_ENDING}", f"*/{SCENE_ENDING}"))


def load_scene(video: Path) -> Scene:
    """The scene that drew a video. Raises ValueError when there is no record or it cannot be used, UnfitVideo where that concerns the video
    alone."""
    path = scene_path(video)
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UnfitVideo(f"{path}: the scene record cannot be read ({error}); generate the video again") from error
    if not isinstance(record, dict):
        raise UnfitVideo(
            f"{path}: a scene record is a JSON object, this is a {type(record).__name__}; generate the video again"
        )
    try:
        return Scene.from_record(record)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


@dataclass(frozen=True)
class TruthChoice:
    """image_size: side of the centre square that the flow square was resized from, pixels. reverse: whether to return the way back too."""

    image_size: int
    reverse: bool = False
    name = "truth"
    smallest_side_px = 1

    def statement(self) -> Statement:
        return {"weights": None, "image_size": self.image_size, "generator_version": GENERATOR_VERSION}

    def build(self) -> TruthEstimator:
        """Ready to run."""
        return TruthEstimator(self.image_size, reverse=self.reverse)


class TruthEstimator:
    """`flow_kchw` of every window from its scene."""

    name = "truth"

    def __init__(self, image_size: int, *, reverse: bool = False) -> None:
        self.image_size, self.reverse = image_size, reverse
        self._scene_of = lru_cache(maxsize=_SCENES_KEPT)(load_scene)

    def estimate(self, windows: Sequence[Window]) -> list[WindowFlow]:
        """Exact flow in pixels of each window's square. Raises ValueError for a video without a usable scene record, UnfitVideo where
        others have one."""
        return [self._exact(window) for window in windows]

    def _exact(self, window: Window) -> WindowFlow:
        scene = self._scene_of(window.path)
        for index in (window.anchor_index, *window.neighbour_indices):
            if not 0 <= index < scene.frames:
                raise UnfitVideo(
                    f"{window.path}: frame {index} is asked for, its scene has {scene.frames}; the video and its record do not match"
                )
        grid = square_grid(scene.width, scene.height, self.image_size, window.anchor_hwc.shape[0])
        flow_kchw = scene.flows(window.anchor_index, window.neighbour_indices, grid)
        if not self.reverse:
            return WindowFlow(flow_kchw)
        back_kchw = [scene.flows(index, (window.anchor_index,), grid)[0] for index in window.neighbour_indices]
        return WindowFlow(flow_kchw, reverse_kchw=np.stack(back_kchw))


def choose(name: str, options: EstimatorOptions, image_size: int) -> TruthChoice:
    """Raises ValueError for options that exact flow has no use for."""
    if options.weights is not None:
        raise ValueError(f"the truth estimator has no use for weights (got {options.weights!r}); leave them out")
    if options.device not in ("cpu", "auto"):
        raise ValueError(f"the truth estimator runs on the CPU only, not on {options.device!r}; leave the device out")
    if options.precision != "fp32":
        raise ValueError(f"the truth estimator computes no flow in {options.precision!r}; leave the precision out")
    if options.extra:
        raise ValueError(f"the truth estimator has no options, got {', '.join(sorted(options.extra))}; leave them out")
    if options.keep_confidence:
        raise ValueError("the truth estimator is exact and gives no confidence; leave --keep-confidence out")
    return TruthChoice(image_size, options.keep_reverse)

"""Video object segmentation with a linear probe: how well one linear layer, fitted to frame 0, finds the objects later on.

A DAVIS sequence comes in through `layouts`, features through `baselines`; per feature source one layer is fitted to the
annotated first frame and applied to every other frame on its own (nothing is propagated); J and F against the annotation
go to the results file frame by frame, so memory doesn't grow with the length of a video.

Protocol: FlowFeat (NeurIPS 2025), section B.1. Where it is silent: bilinear resizing has align_corners False; labels are
reduced to the resolution of the features by taking the pixel at each cell's centre; frames are resized with antialiasing,
as in training; features are not normalised.

Memory at 480x832, 128 channels: a full-resolution map is 0.2 GB; two are held while fitting and the decoder needs a few
more, 1.5 GB at the peak on a CPU with a ViT-S encoder, however long the video.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from probes.data import davis as layouts
from probes.heads import linear
from probes.metrics.davis import score_frame, summarise
from probes.drawing import SequencePictures, display_size, picked_frames
from probes.report.store import ObjectScore, Results, SequenceRecord
from probes.sources.flowfeat import Features, FeatureSource, create_sources

if TYPE_CHECKING:
    from trainer import FlowFeat

PAPER_HEIGHT_PX = 480
PAPER_WIDTH_STEP_PX = 64
BATCH_PIXELS = {"cpu": 480 * 832, "cuda": 8 * 480 * 832}
"""Pixels of the network's input per batch: one 480p frame on a CPU, where more gain nothing and cost 1 GB each."""


@dataclass(frozen=True)
class Settings:
    """What shapes a score besides model and data. Defaults are the paper's."""

    height_px: int = PAPER_HEIGHT_PX
    iterations: int = linear.ITERATIONS
    standardise: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.height_px < 1:
            raise ValueError(f"height {self.height_px} must be at least 1 pixel")
        if self.iterations < 1:
            raise ValueError(f"iterations {self.iterations} must be at least 1: the probe starts from zero weights")


class Watcher(Protocol):
    """Is told how a run goes on."""

    def begin(self, sequences: int, steps: int) -> None: ...
    def note(self, line: str) -> None: ...
    def step(self, sequence: str, steps: int) -> None: ...
    def sequence_done(self, sequence: str, record: SequenceRecord, sources: Sequence[str]) -> None: ...


def input_size(height_px: int, frame_height: int, frame_width: int, patch: int) -> tuple[int, int]:
    """(H, W) a frame is resized to before the network, near `height_px` and the frame's aspect.

    H is the largest multiple of twice the patch that fits: 480 for patch 16, 476 for 14. W is rounded down to a multiple of
    64 as in the paper (832 for 854x480), or of twice the patch where 64 is none (840 for patch 14) and below the paper's
    height, where a step of 64 would squeeze the picture visibly.

    Raises
    ------
    ValueError: `height_px` is below twice the patch.
    """
    multiple = 2 * patch
    height = height_px // multiple * multiple
    if height == 0:
        raise ValueError(f"height {height_px} is too small: patch {patch} needs at least {multiple} pixels")
    fits = height_px >= PAPER_HEIGHT_PX and PAPER_WIDTH_STEP_PX % multiple == 0
    step = PAPER_WIDTH_STEP_PX if fits else multiple
    return height, max(step, height * frame_width // (frame_height * step) * step)


def network_input(
    images: Sequence[Image.Image], size_hw: tuple[int, int], model: FlowFeat, device: torch.device
) -> Tensor:
    """[B, 3, H, W] float32, ImageNet-normalised, of PIL pictures resized to (H, W)."""
    resized = [np.asarray(image.resize((size_hw[1], size_hw[0]), Image.Resampling.BILINEAR)) for image in images]
    return model.normalise(torch.from_numpy(np.stack(resized)).to(device))


def labels_for(features: Features, labels_hw: NDArray[np.uint8]) -> Tensor:
    """int64 labels at the resolution of the features: the label at every cell's centre."""
    target = features.low_bdgf if features.high_bkhw is None else features.high_bkhw
    size = (target.shape[-2], target.shape[-1])
    # "nearest-exact" samples cell centres; "nearest" would take corners and shift a token grid by half a patch.
    labels = F.interpolate(torch.from_numpy(labels_hw.astype(np.float32))[None, None], size=size, mode="nearest-exact")
    return labels[0, 0].long().to(target.device)


def fit_first_frame(
    sequence: layouts.Sequence,
    sources: Sequence[FeatureSource],
    images_bchw: Tensor,
    settings: Settings,
    pictures: SequencePictures,
) -> dict[str, linear.LinearProbe]:
    """A probe per source, fitted to frame 0."""
    labels_hw = sequence.labels(0)
    probes = {}
    for source in sources:
        features = source(images_bchw)
        labels = labels_for(features, labels_hw)
        if not bool(labels.any()):
            raise ValueError(
                f"sequence {sequence.name!r}: the objects of the first frame vanish at {labels.shape[0]}x{labels.shape[1]} "
                f"({source.name}): use a larger --height"
            )
        probes[source.name] = linear.fit(
            features, labels, sequence.objects + 1, iterations=settings.iterations, standardise=settings.standardise
        )
        pictures.first_frame(source.name, features)
    return probes


def batches(first: int, stop: int, size: int) -> Iterator[range]:
    for start in range(first, stop, size):
        yield range(start, min(start + size, stop))


def evaluate_sequence(
    sequence: layouts.Sequence,
    sources: Sequence[FeatureSource],
    model: FlowFeat,
    settings: Settings,
    device: torch.device,
    pictures: SequencePictures,
    watcher: Watcher,
) -> dict[str, list[ObjectScore]]:
    """J and F statistics per source and object. The first and last frame are not scored, as in the DAVIS benchmark."""
    size_hw = input_size(settings.height_px, sequence.height, sequence.width, model.patch_size)
    probes = fit_first_frame(
        sequence, sources, network_input([sequence.image(0)], size_hw, model, device), settings, pictures
    )
    watcher.step(sequence.name, len(sources))
    shown = set(picked_frames(len(sequence)))
    scores = {source.name: np.empty((2, sequence.objects, len(sequence) - 2)) for source in sources}
    per_batch = max(1, BATCH_PIXELS.get(device.type, BATCH_PIXELS["cpu"]) // (size_hw[0] * size_hw[1]))
    for indices in batches(1, len(sequence) - 1, min(per_batch, 8)):
        images = [sequence.image(index) for index in indices]
        truths = [sequence.labels(index) for index in indices]
        images_bchw = network_input(images, size_hw, model, device)
        for source in sources:
            features = source(images_bchw)
            predicted = probes[source.name].predict(features, sequence.height, sequence.width).cpu().numpy()
            for place, index in enumerate(indices):
                scores[source.name][:, :, index - 1] = score_frame(truths[place], predicted[place], sequence.objects)
                if index in shown:
                    frame = sequence.frames[index].stem
                    pictures.frame(frame, images[place], truths[place])
                    pictures.prediction(frame, source.name, images[place], predicted[place], features.picture(place))
        watcher.step(sequence.name, len(sources) * len(indices))
    return {
        name: [ObjectScore(summarise(values[0, o]), summarise(values[1, o])) for o in range(sequence.objects)]
        for name, values in scores.items()
    }


def run(
    model: FlowFeat,
    sequences: Sequence[layouts.Sequence],
    results: Results,
    out: Path,
    settings: Settings,
    device: torch.device,
    watcher: Watcher,
) -> None:
    """Measure every sequence of `results.selection` that lacks a score of `results.sources`, saving after each.

    Raises
    ------
    ValueError: a frame or annotation that cannot be decoded, features that are not finite. What was done before is kept.
    """
    sources = {source.name: source for source in create_sources(results.sources, model.to(device), seed=settings.seed)}
    todo: list[tuple[layouts.Sequence, list[FeatureSource]]] = []
    for sequence in sequences:
        record = results.sequences.get(sequence.name)
        if record is None or record.fingerprint != sequence.fingerprint():
            fresh = SequenceRecord(sequence.fingerprint(), len(sequence), sequence.height, sequence.width)
            results.sequences[sequence.name] = record = fresh
        missing = [source for name, source in sources.items() if name not in record.scores]
        if missing:
            todo.append((sequence, missing))
    if len(todo) < len(sequences):
        watcher.note(
            f"{len(sequences) - len(todo)} of {len(sequences)} sequences are already measured with these settings"
        )
    watcher.begin(len(todo), sum((len(sequence) - 1) * len(missing) for sequence, missing in todo))
    for sequence, missing in todo:
        record = results.sequences[sequence.name]
        pictures = SequencePictures(out, sequence.name, display_size(sequence.height, sequence.width))
        started = time.perf_counter()
        record.scores.update(evaluate_sequence(sequence, missing, model, settings, device, pictures, watcher))
        seconds = (time.perf_counter() - started) / len(missing)
        record.seconds.update({source.name: round(seconds, 2) for source in missing})
        for frame, files in pictures.files.items():
            record.pictures.setdefault(frame, {}).update(files)
        results.save(out / "vos.json")
        watcher.sequence_done(sequence.name, record, results.sources)

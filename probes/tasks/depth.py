"""Depth from one picture, and the surface normals that follow from it: how much of a scene's shape the features tell.

Pairs of pictures and depth maps come in through `data/rgbd.py`, features from the sources; per source one head is trained
on the training pictures (`heads/depth_probe.py`) and predicts the depth of every test picture; scores against the sensor
go back per picture, with pictures of three of them.

Protocol: FlowFeat (NeurIPS 2025, sections 4.3 and B.3) after Probe3D: the centre square of a picture, resized to
the input's side; the predicted depth is resized to the sensor's square and scored where the sensor measured something, mean
over pictures; no alignment of scale. Our choices, where the paper is silent or the data are smaller: 2,000 iterations instead of up
to 100,000; no augmentation; all resizing with align_corners False.

Every table carries what a prediction without a picture would score: the mean depth of the training pictures everywhere, and
for normals a wall that faces the camera. Normals of both depth maps are taken over 1/48 of the side (10 pixels of 480),
because a sensor's steps of a centimetre would drown them at one pixel, and not across occlusion edges (jumps of more than a
tenth of the depth).

Memory: the features of one batch (128 channels at 480 px: 0.12 GB per picture), and 1 GB for the logits of one picture;
features of all training pictures where they fit into --feature-memory. A batch goes through the network in parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

import click
import numpy as np
import torch
import torch.nn.functional as F

from probes.data import rgbd
from probes.data.images import PAPER_HEIGHT_PX, batch_of, input_size
from probes.heads import depth_probe
from probes.heads.depth import DepthBins
from probes.metrics.depth import absolute_relative_error, score_depth, score_normals
from probes.options import option
from probes.paper import references
from probes.sources.features import Source, by_encoder, features_of
from probes.task import Context, Metric, Noun, Reference, Row, Settings, Task, Unit
from probes.tasks import chance
from probes.tasks.depth_pictures import LARGEST_JUMP, Drawing, Floats, normal_step_px
from probes.tasks.depth_training import RunningMean, TrainingPictures
from probes.tasks.segmentation_options import memory_option

PICTURES = 3
GIB = 2**30


@dataclass(frozen=True)
class Depth(Task):
    """The probe as asked for on the command line."""

    name: ClassVar = "depth"
    title: ClassVar = "Depth and surface normals"
    description: ClassVar = (
        "One head per source, trained on frozen features to say how far away every pixel is: the attention probe where there is "
        "a decoder, a linear layer on tokens where there is none, both over fixed depth bins. Scored per test picture where "
        "the sensor measured something. Mean depth and wall: what predictions without a picture would score."
    )
    pictures_note: ClassVar = "Red is near and blue is far, on one scale per picture; black: nothing measured."
    unit: ClassVar = Noun("run", "runs")
    part: ClassVar = Noun("picture", "pictures")
    step: ClassVar = Noun("step", "steps")
    metrics: ClassVar = (
        Metric("rmse", "RMSE", higher_is_better=False, decimals=3, suffix="m"),
        Metric("rmse_mean_depth", "RMSE of mean depth", higher_is_better=False, decimals=3, suffix="m"),
        Metric("abs_rel", "abs. rel.", higher_is_better=False, decimals=3),
        Metric("delta1", "δ1", percent=True),
        Metric("delta2", "δ2", percent=True),
        Metric("delta3", "δ3", percent=True),
        Metric("normal_mean", "normals: mean", higher_is_better=False, suffix="deg"),
        Metric("normal_mean_wall", "normals of a wall", higher_is_better=False, suffix="deg"),
        Metric("normal_rmse", "normals: RMSE", higher_is_better=False, suffix="deg"),
        Metric("normal_11", "normals < 11.25°", percent=True),
        Metric("normal_22", "normals < 22.5°", percent=True),
        Metric("normal_30", "normals < 30°", percent=True),
    )
    headline: ClassVar = "rmse"
    chance_note: ClassVar = "the mean depth of the training pictures everywhere"
    in_processes: ClassVar = True
    long_units: ClassVar = True

    embedded: ClassVar = {
        "root": "depth", "side_px": 128, "iterations": 150, "batch": 4, "learning_rate": 2e-3, "bins": 64, "farthest_m": 20.0
    }  # fmt: skip

    root: Path | None = field(
        default=None,
        metadata=option(
            "--depth", click.Path(path_type=Path), "Folder of pictures and 16-bit depth PNGs, or NYUv2.", data=True
        ),
    )
    side_px: int = field(default=PAPER_HEIGHT_PX, metadata=option("--height", int, "Side of the square input, px."))
    iterations: int = field(
        default=2000, metadata=option("--depth-iterations", int, "Training steps of the depth heads.")
    )
    batch: int = field(default=depth_probe.BATCH, metadata=option("--depth-batch", int, "Pictures per training step."))
    learning_rate: float = field(
        default=depth_probe.LEARNING_RATE, metadata=option("--depth-lr", float, "Learning rate of the depth heads.")
    )
    bins: int = field(default=256, metadata=option("--depth-bins", int, "Depth bins, and logits per pixel."))
    farthest_m: float = field(
        default=10.0,
        metadata=option("--depth-farthest", float, "The last bin, in metres; what is beyond isn't scored."),
    )
    scale: float = field(default=1000.0, metadata=option("--depth-scale", float, "Steps of a depth PNG per metre."))
    runs: int = field(default=1, metadata=option("--depth-runs", int, "Trainings from other seeds, for the spread."))
    memory_gb: float = memory_option()

    def __post_init__(self) -> None:
        for name in ("side_px", "iterations", "batch", "runs"):
            if getattr(self, name) < 1:
                raise ValueError(f"depth probe: {name} {getattr(self, name)} must be at least 1")
        for name in ("learning_rate", "farthest_m", "scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"depth probe: {name} {getattr(self, name)} must be above 0")
        if self.bins < 2:
            raise ValueError(f"depth probe: {self.bins} depth bins can hold no depth, give at least 2")

    def settings(self) -> Settings:
        return {
            "height": self.side_px,
            "iterations": self.iterations,
            "batch": self.batch,
            "learning_rate": self.learning_rate,
            "weight_decay": depth_probe.WEIGHT_DECAY,
            "bins": self.bins,
            "farthest_m": self.farthest_m,
            "steps_per_metre": self.scale,
        }

    def chance(self, unit: Unit, seed: int) -> list[Row]:
        assert isinstance(unit, Training)
        mean_depth = RunningMean()
        for pair in chance.evenly(unit.train):
            depth = self.measured(pair)
            mean_depth.add(torch.from_numpy(depth[depth > 0]))
        return chance.constant_depth(unit.test, self.measured, mean_depth.value, scores)

    def measured(self, pair: rgbd.Pair) -> Floats:
        """The sensor's square, 0 beyond the last bin."""
        depth = pair.depth_m()
        return np.where(depth <= self.farthest_m, depth, 0)

    def about(self) -> Settings:
        return {"data": str(self.root)}

    def units(self) -> list[Training]:
        if self.root is None:
            raise ValueError(f"the depth probe needs --depth DIR: {rgbd.EXPECTED}")
        train, test = rgbd.split(rgbd.open_pairs(self.root, self.scale), self.root)
        return [Training(self, run, tuple(train), tuple(test)) for run in range(self.runs)]

    @classmethod
    def references(cls, settings: Settings, units: int) -> Sequence[Reference]:
        note = (
            "NYUv2 at 480 pixels, up to 100,000 iterations; other data or fewer iterations cannot be compared. "
            f"This run: {settings.get('height')} pixels, {settings.get('iterations')} iterations."
        )
        return references(cls.name, cls.metrics, settings, note)


@dataclass(frozen=True)
class Training:
    """One training of every source's head, and its test. number: other runs draw other heads and orders of pictures."""

    task: Depth
    number: int
    train: tuple[rgbd.Pair, ...]
    test: tuple[rgbd.Pair, ...]

    @property
    def name(self) -> str:
        return f"run {self.number}"

    @property
    def facts(self) -> Mapping[str, int]:
        return {"trained on": len(self.train), "tested on": len(self.test)}

    @property
    def steps(self) -> int:
        """Training steps and test pictures."""
        return self.task.iterations + len(self.test)

    def fingerprint(self) -> str:
        return f"{rgbd.fingerprint(self.train)} {rgbd.fingerprint(self.test)}"

    def evaluate(self, sources: Sequence[Source], context: Context) -> dict[str, list[Row]]:
        """A row per test picture in which the sensor measured something."""
        rows: dict[str, list[Row]] = {source.name: [] for source in sources}
        for group in by_encoder(sources):
            self._evaluate_group(group, context, rows)
        if not all(rows.values()):
            raise ValueError(
                f"the sensor measured nothing in {len(self.test)} test pictures, first {self.test[0].depth}: {self._way_out()}"
            )
        return rows

    def _way_out(self) -> str:
        return f"are --depth-scale {self.task.scale:g} and --depth-farthest {self.task.farthest_m:g} m right?"

    def _evaluate_group(self, group: Sequence[Source], context: Context, rows: dict[str, list[Row]]) -> None:
        size_hw = input_size(self.task.side_px, 1, 1, group[0].encoder.size_multiple)
        seed = context.seed + self.number
        training = TrainingPictures(
            group,
            self.train,
            self.task.measured,
            size_hw,
            context.device,
            int(self.task.memory_gb * GIB),
            context.batches,
        )
        probes = depth_probe.train(
            training.batches(self.task.batch, self.task.iterations, seed),
            DepthBins(self.task.bins, farthest_m=self.task.farthest_m),
            seed=seed,
            learning_rate=self.task.learning_rate,
            step=context.step,
        )
        mean_depth = training.mean_depth
        if mean_depth.count == 0:
            raise ValueError(f"the sensor measured nothing in {len(self.train)} training pictures: {self._way_out()}")
        shown = {round(i * (len(self.test) - 1) / max(PICTURES - 1, 1)) for i in range(PICTURES)}
        for index, pair in enumerate(self.test):
            truth = self.task.measured(pair)
            drawing = Drawing(pair, truth, context) if index in shown and (truth > 0).any() else None
            for source, features in features_of(group, batch_of([pair.image()], size_hw, context.device)):
                depth = probes[source.name].predict(features, size_hw)
                square = F.interpolate(depth, size=truth.shape, mode="bilinear", align_corners=False)
                predicted = square[0, 0].cpu().numpy()
                values = scores(predicted, truth, pair, mean_depth.value)
                if values:
                    rows[source.name].append(Row(pair.name, values))
                if drawing is not None:
                    drawing.draw(predicted, source)
            context.step(len(group))


def scores(predicted: Floats, truth: Floats, pair: rgbd.Pair, mean_depth: float) -> dict[str, float]:
    """All metrics of one picture; empty if nothing was measured, without normals where there is no camera."""
    depth, relative = score_depth(predicted, truth), absolute_relative_error(predicted, truth)
    constant = np.full_like(truth, mean_depth)
    without_picture = score_depth(constant, truth)
    if depth is None or relative is None or without_picture is None:
        return {}
    values = {
        "rmse": depth.rmse_m,
        "rmse_mean_depth": without_picture.rmse_m,
        "abs_rel": relative,
        "delta1": depth.delta1,
        "delta2": depth.delta2,
        "delta3": depth.delta3,
    }
    camera = pair.square_camera()
    if camera is None:
        return values
    step = normal_step_px(truth.shape[0])
    normals = score_normals(predicted, truth, camera, step=step, largest_jump=LARGEST_JUMP)
    wall = score_normals(constant, truth, camera, step=step, largest_jump=LARGEST_JUMP)
    if normals is not None and wall is not None:
        values |= dict(
            zip(
                ("normal_mean", "normal_rmse", "normal_11", "normal_22", "normal_30"),
                asdict(normals).values(),
                strict=True,
            )
        )
        values["normal_mean_wall"] = wall.mean_deg
    return values

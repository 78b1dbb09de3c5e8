"""What motion is in the features: cached flow read out of them by one linear map per picture, on videos that nobody trained on.

Pairs of a shard set come in through `data/shard_pairs.py`, features of two crops of the anchor from the sources. A ridge
regression from the features of crop 1 to its flow is applied to the features of crop 2: the question that FlowFeat is trained
on (NeurIPS 2025, Eq. 4), asked of any features. Per video R2, end-point error and the F of motion edges go back, beside the best
constant and the best affine flow of crop 2, which need no features (`trainer/holdout.py` has the formulas).

The protocol is ours. A source's dense map is read where it has one, else its tokens, resized bilinearly. Features are divided by
their root mean square over crop 1, so that a ridge strength means the same for all (a decoder's LayerNorm gives 1 already).
0.1 is that of the published training on YouTube-VOS; a stronger one costs sources most that were not trained for it, a weaker
one fits features without motion to noise. No future frame is seen: what can be read out is what moves together, not how fast.

The picture of the paper's Fig. 6: the pair of each shown video whose flow is worst, by its own confidence where the set
keeps it, else by the first source's error: its flow, what the features explain of it, and the features.

Memory: two maps of a source at the size of a view, and their (k + 1)^2 moments.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from common.feature_colors import ColorBasis
from common.flow_colors import flow_to_color
from common.place import PLACE
from probes.data.shard_pairs import EXPECTED, Pair, PairViews, open_shards, pairs_by_video, set_digest, spread, views_of
from probes.drawing import feature_picture, shown_map, with_wheel
from probes.metrics.motion import edge_strength, motion_edge_accuracy
from probes.options import option
from probes.sources.features import Features, Source, by_encoder, features_of
from probes.task import Context, Metric, Noun, Row, Settings, Task, Unit
from shards.reader import ShardSet
from trainer import FlowSums, fit_linear_map, mean_flow, predict_flow

log = logging.getLogger(__name__)
DRAWN_VIDEOS = 6
PART = "all pairs"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Motion(Task):
    """The probe as asked for on the command line."""

    name: ClassVar = "motion"
    title: ClassVar = "Motion in the features"
    description: ClassVar = (
        "Flow of videos that were not trained on, read out of the features by one linear map per picture: fitted to one crop, judged on "
        "another. R²: share of the flow's variance; EPE: end-point error in pixels of the stored flow map; edges: F of the places where "
        "flow jumps. The best affine flow and the mean flow of the judged crop are beside them: they need no features."
    )
    pictures_note: ClassVar = (
        "The worst pair of each video, by the flow's own confidence where the set keeps it: hue is the direction of motion, as in "
        "the wheel. What a source explains is smooth where the flow is noise, and sharp where it has the object. Features: three "
        "principal components."
    )
    unit: ClassVar = Noun("video", "videos")
    part: ClassVar = Noun("set of pairs", "sets of pairs")
    step: ClassVar = Noun("pair", "pairs")
    metrics: ClassVar = (
        Metric("R2", "R²", percent=True),
        Metric("R2_affine", "R² of the best affine flow", percent=True),
        Metric("EPE", "EPE", higher_is_better=False, decimals=2, suffix="px"),
        Metric("EPE_affine", "EPE of the best affine flow", higher_is_better=False, decimals=2, suffix="px"),
        Metric("EPE_mean", "EPE of the mean flow", higher_is_better=False, decimals=2, suffix="px"),
        Metric("edges", "motion edges F", percent=True),
    )
    in_processes: ClassVar = True
    headline: ClassVar = "R2"
    embedded: ClassVar = {"root": "shards", "side_px": 128, "most_videos": 8, "most_pairs": 2}

    root: Path | str | None = field(
        default=None,
        metadata=option(
            "--shards", PLACE, "Shard set that was not trained on: a folder, or an address (s3://...).", data=True
        ),
    )
    side_px: int = field(default=224, metadata=option("--motion-size", int, "Side of a view, px."))
    most_pairs: int = field(default=4, metadata=option("--motion-pairs", int, "Pairs per video at most."))
    most_videos: int = field(
        default=24, metadata=option("--motion-videos", int, "Videos at most, evenly over the set.")
    )
    alpha: float = field(default=0.1, metadata=option("--motion-alpha", float, "Ridge strength of the readout."))

    def __post_init__(self) -> None:
        for name in ("side_px", "most_pairs", "most_videos"):
            if getattr(self, name) < 1:
                raise ValueError(f"motion probe: {name} {getattr(self, name)} must be at least 1")
        if not self.alpha > 0:
            raise ValueError(f"motion probe: alpha {self.alpha} must be above 0: the plain system is singular")

    def settings(self) -> Settings:
        return {"size": self.side_px, "pairs": self.most_pairs, "alpha": self.alpha}

    def about(self) -> Settings:
        return {"data": str(self.root)}

    def units(self) -> list[Video]:
        if self.root is None:
            raise ValueError(f"the motion probe needs --shards DIR: {EXPECTED}")
        shards = open_shards(self.root)
        found = list(pairs_by_video(shards, self.most_pairs).items())
        if not found:
            raise ValueError(f"{self.root} holds no pair with usable flow")
        picked = [found[place] for place in spread(len(found), self.most_videos)]
        drawn = {picked[place][0] for place in spread(len(picked), DRAWN_VIDEOS)}
        return [Video(self, shards, name, tuple(pairs), name in drawn) for name, pairs in picked]

    def chance(self, unit: Unit, seed: int) -> list[Row]:
        """The mean flow of the judged crop, with edges at random places."""
        assert isinstance(unit, Video), unit
        sums = _Sums()
        for pair in unit.pairs:
            views = views_of(unit.shards, pair, self.side_px, seed, CPU)
            noise = np.random.default_rng([seed, pair.sample, pair.neighbour]).random((self.side_px - 1,) * 2)
            sums.add(mean_flow(views.u2_b2hw), views, noise)
        return [Row(PART, sums.values())]


@dataclass
class _Sums:
    """A video's figures, pair by pair."""

    flow: FlowSums = field(default_factory=FlowSums)
    edges: list[float] = field(default_factory=list)

    def add(self, predicted_b2hw: Tensor, views: PairViews, strength_hw: NDArray[np.float64] | None = None) -> None:
        self.flow.add(predicted_b2hw, views.u2_b2hw, views.px_b211)
        if strength_hw is None:
            strength_hw = edge_strength(predicted_b2hw[0].cpu().numpy())
        accuracy = motion_edge_accuracy(views.u2_b2hw[0].cpu().numpy(), strength_hw)
        if accuracy is not None:
            self.edges.append(accuracy)

    def values(self) -> dict[str, float]:
        figures = self.flow.figures()
        assert figures is not None
        values = {
            "R2": figures.explained,
            "R2_affine": figures.explained_by_affine,
            "EPE": figures.epe_px,
            "EPE_affine": figures.epe_px_of_affine,
            "EPE_mean": figures.epe_px_of_mean,
        }
        return values | ({"edges": float(np.mean(self.edges))} if self.edges else {})


@dataclass(frozen=True)
class Shown:
    """The pair that is drawn: how bad its flow is, and what is needed of it."""

    badness: float
    views: PairViews


@dataclass(frozen=True)
class Video:
    """The chosen pairs of one video."""

    task: Motion
    shards: ShardSet
    name: str
    pairs: tuple[Pair, ...]
    drawn: bool

    @property
    def facts(self) -> Mapping[str, int]:
        return {"pairs": len(self.pairs)}

    @property
    def steps(self) -> int:
        return len(self.pairs)

    def fingerprint(self) -> str:
        return f"{set_digest(self.shards)[:16]} {len(self.pairs)}"

    def evaluate(self, sources: Sequence[Source], context: Context) -> dict[str, list[Row]]:
        rows: dict[str, list[Row]] = {}
        for group in by_encoder(sources):
            rows |= self._evaluate_group(group, context)
        return rows

    def _evaluate_group(self, sources: Sequence[Source], context: Context) -> dict[str, list[Row]]:
        side = self._side(sources[0])
        sums = {source.name: _Sums() for source in sources}
        worst: Shown | None = None
        for pair in self.pairs:
            views = views_of(self.shards, pair, side, context.seed, context.device)
            error = 0.0
            for source, predicted, _ in self._readouts(sources, views):
                sums[source.name].add(predicted, views)
                error = error or float((predicted - views.u2_b2hw).square().mean())
            context.step(len(sources))
            badness = error if pair.confidence is None else 1 - pair.confidence
            if worst is None or badness > worst.badness:
                worst = Shown(badness, views)
        if self.drawn and worst is not None:
            self._draw(sources, worst.views, context)
        return {source.name: [Row(self._part(source), sums[source.name].values())] for source in sources}

    def _side(self, source: Source) -> int:
        multiple = source.encoder.size_multiple
        side = self.task.side_px // multiple * multiple
        if side == 0:
            raise ValueError(
                f"--motion-size {self.task.side_px} is too small: {source.name} takes multiples of {multiple}"
            )
        return side

    def _readouts(self, sources: Sequence[Source], views: PairViews) -> list[tuple[Source, Tensor, Features]]:
        """Per source the flow of crop 2 as its features have it, and those features."""
        alpha, side = self.task.alpha, views.u1_b2hw.shape[-1]
        maps = {}
        for source, features in features_of(sources, views.images1_bhwc):
            features.require_finite()
            x1, scale = _scaled(readable(features, side))
            maps[source.name] = fit_linear_map(x1, views.u1_b2hw, alpha), scale
        found = []
        for source, features in features_of(sources, views.images2_bhwc):
            linear_map, scale = maps[source.name]
            found.append((source, predict_flow(readable(features, side) * scale, linear_map), features))
        return found

    def _part(self, source: Source) -> str:
        if source.trained_on != set_digest(self.shards):
            return PART
        _warn_once(source.name, self.shards.place)
        return f"{PART}, seen in training"

    def _draw(self, sources: Sequence[Source], views: PairViews, context: Context) -> None:
        group, size = "worst pair", (views.u2_b2hw.shape[-1],) * 2
        target = views.u2_b2hw[0].cpu().numpy()
        largest = max(float(np.quantile(np.hypot(*target), 0.99)), 1e-6)
        context.pictures.save(group, "frame", Image.fromarray(views.images2_bhwc[0].cpu().numpy()))
        context.pictures.save(group, "flow", with_wheel(flow_to_color(target, largest)))
        for source, predicted, features in self._readouts(sources, views):
            explained = flow_to_color(predicted[0].cpu().numpy(), largest)
            context.pictures.save(group, "explained", Image.fromarray(explained), source)
            shown = shown_map(features)
            context.pictures.save(group, "features", feature_picture(ColorBasis.fit(shown), shown, size), source)


@cache
def _warn_once(source: str, place: str) -> None:
    log.warning("%s was trained on the very set at %s: it shows what it remembers, take another set", source, place)


def readable(features: Features, side_px: int) -> Tensor:
    """The map [b, c, side, side] that is read: the dense one, else tokens resized bilinearly."""
    found = features.low_bdgf if features.high_bkhw is None else features.high_bkhw
    if found.shape[-2:] == (side_px, side_px):
        return found
    return F.interpolate(found, size=(side_px, side_px), mode="bilinear", align_corners=False)


def _scaled(x_bdhw: Tensor) -> tuple[Tensor, float]:
    """Features of mean square 1, and the factor."""
    scale = 1 / max(float(x_bdhw.square().mean().sqrt()), 1e-12)
    return x_bdhw * scale, scale

"""Correspondence without labels: does a point's feature find the point again in another view of the same picture?

A folder of pictures comes in; each is paired with random homographies of itself (`data/homographies.py`), points are drawn
evenly over the second view, and their features, read from the first, are looked up in the second: the cell with the largest
cosine is the answer (`heads/matching.py`). Nothing is trained. The share of answers within 1, 2, 4 and 8 pixels goes back,
per picture and homography, beside its ceiling: what the best answer that is the centre of a cell would score.

Pixels are those of a view `height_px` high, whatever size an encoder takes. The protocol is ours, after VisBench's idea; TAP-Vid
(NeurIPS 2022) gave the mean over thresholds. An answer at random is within 8 pixels in 0.2 % of a 256x341 view.

Memory: maps of up to four views of a source and one joined map (0.36 GB with 512 channels at 256x341), the cosines of 256
points with one (0.09 GB).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import click
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from probes.data.batching import batches
from probes.data.homographies import Floats, Homography, fine_picture, first_view, random_homography, second_view
from probes.data.images import batch_of, input_size, list_images_below, open_rgb
from probes.heads.joined import Matched, joined_map
from probes.heads.matching import CHUNK, best_cells, features_at
from probes.metrics.tracking import SIDE_PX, nearest_cell_centers, to_benchmark_size
from probes.options import option
from probes.sources.features import Source, by_encoder, features_of
from probes.task import Context, Metric, Noun, Row, Settings, Task, Unit

THRESHOLDS_PX = (1, 2, 4, 8)
DRAWN_UNITS, DRAWN_POINTS = 6, 24
NEAR_PX, FAR_PX = 2, 8
EXPECTED = "expected a folder with .jpg, .jpeg or .png pictures, in it or in folders below"


def _metrics() -> tuple[Metric, ...]:
    columns = [Metric("mean", "mean of shares", percent=True), Metric("ceiling", "its ceiling", percent=True)]
    for pixels in THRESHOLDS_PX:
        columns.append(Metric(f"within_{pixels}", f"< {pixels} px", percent=True))
        columns.append(Metric(f"ceiling_{pixels}", "ceiling", percent=True))
    return tuple(columns)


@dataclass(frozen=True)
class HomographyMatching(Task):
    """The probe as asked for on the command line."""

    name: ClassVar = "homography"
    title: ClassVar = "Correspondence between two views, without training"
    description: ClassVar = (
        "Points of a picture are looked for in a random homography of it, by the largest cosine of features. Shares of points that are "
        "found within so many pixels. Ceiling: what the best answers would score at the resolution of the features."
    )
    pictures_note: ClassVar = (
        f"Lines join a point to its answer: green within {NEAR_PX} px, yellow within {FAR_PX} px, red farther off."
    )
    unit: ClassVar = Noun("picture", "pictures")
    part: ClassVar = Noun("view", "views")
    step: ClassVar = Noun("view", "views")
    metrics: ClassVar = _metrics()
    headline: ClassVar = "mean"
    in_processes: ClassVar = True
    chance_note: ClassVar = "the same place in the other view"

    embedded: ClassVar = {"folder": "segmentation/val", "height_px": 160, "views": 2, "points": 128}

    folder: Path | None = field(
        default=None,
        metadata=option("--images", click.Path(path_type=Path), "Folder of pictures, without labels.", data=True),
    )
    height_px: int = field(default=SIDE_PX, metadata=option("--height", int, "Height of a view, px."))
    warp: float = field(default=0.25, metadata=option("--warp", float, "How far corners move, as a share of the side."))
    views: int = field(default=3, metadata=option("--views", int, "Homographies per picture."))
    points: int = field(default=256, metadata=option("--points", int, "Points per homography."))
    matched: Matched = field(
        default="both",
        metadata=option("--match", click.Choice(["both", "decoder"]), "Which features of sources with a decoder."),
    )
    most: int = field(
        default=100, metadata=option("--most-images", int, "No more pictures than these, evenly over the folder.")
    )

    def __post_init__(self) -> None:
        for name in ("height_px", "views", "points", "most"):
            if getattr(self, name) < 1:
                raise ValueError(f"homography probe: {name} {getattr(self, name)} must be at least 1")
        if not 0 <= self.warp < 0.5:
            raise ValueError(f"homography probe: warp {self.warp} must be from 0 to below 0.5, or corners would cross")

    def settings(self) -> Settings:
        return {
            "height": self.height_px,
            "warp": self.warp,
            "views": self.views,
            "points": self.points,
            "matched": self.matched,
        }

    def chance(self, unit: Unit, seed: int) -> list[Row]:
        assert isinstance(unit, Picture)
        image = open_rgb(unit.path)
        rows = []
        for number in range(self.views):
            size, homography, asked = unit.question(image, number, seed)
            shares = _shares(homography.to_first(asked), asked, size, size)
            found = {name: value for name, value in shares.items() if not name.startswith("ceiling")}
            rows.append(Row(f"view {number + 1}", found))
        return rows

    def about(self) -> Settings:
        return {"data": str(self.folder)}

    def units(self) -> list[Picture]:
        if self.folder is None:
            raise ValueError(f"the homography probe needs --images DIR: {EXPECTED}")
        if not self.folder.is_dir():
            raise ValueError(f"{self.folder} is not a directory: {EXPECTED}")
        found = list_images_below(self.folder)
        if not found:
            raise ValueError(f"{self.folder} holds no picture: {EXPECTED}")
        picked = np.unique(np.linspace(0, len(found) - 1, min(self.most, len(found))).round().astype(int))
        drawn = set(np.linspace(0, len(picked) - 1, DRAWN_UNITS).round().astype(int).tolist())
        return [Picture(self, found[index], number in drawn) for number, index in enumerate(picked)]


@dataclass(frozen=True)
class Picture:
    """One picture and its homographies."""

    task: HomographyMatching
    path: Path
    drawn: bool

    @property
    def name(self) -> str:
        assert self.task.folder is not None
        return self.path.relative_to(self.task.folder).as_posix()

    @property
    def facts(self) -> Mapping[str, int]:
        return {"views": self.task.views}

    @property
    def steps(self) -> int:
        return self.task.views

    def fingerprint(self) -> str:
        return str(self.path.stat().st_size)

    def _view_size(self, image: Image.Image) -> tuple[int, int]:
        return self.task.height_px, max(1, round(self.task.height_px * image.width / image.height))

    def question(self, image: Image.Image, number: int, seed: int) -> tuple[tuple[int, int], Homography, Floats]:
        """Size (height, width) of the views, how the second came to be, and the points [n, 2] of it to be found."""
        size = self._view_size(image)
        # The name, not its place: a picture has the same homographies in any selection.
        rng = np.random.default_rng([seed, number, zlib.crc32(self.name.encode())])
        homography = random_homography(rng, size, self.task.warp)
        return size, homography, rng.uniform(0, 1, (self.task.points, 2)) * (size[1], size[0])

    def evaluate(self, sources: Sequence[Source], context: Context) -> dict[str, list[Row]]:
        """A row per homography."""
        image = open_rgb(self.path)
        fine = fine_picture(image, self._view_size(image))
        asked = [self.question(image, number, context.seed) for number in range(self.task.views)]
        views = [Views(size, first_view(fine), second_view(fine, found), found) for size, found, _ in asked]
        points = [wanted for _, _, wanted in asked]
        rows: dict[str, list[Row]] = {source.name: [] for source in sources}
        for group in by_encoder(sources):
            for source, number, found, grid in _answers(group, views, points, self.task.matched, context):
                size = views[number].size
                rows[source.name].append(Row(f"view {number + 1}", _shares(found, points[number], size, grid)))
                if self.drawn and number == 0:
                    context.pictures.save("view 1", "matches", views[0].drawing(points[0], found), source)
        return rows


@dataclass(frozen=True)
class Views:
    """Two views of (height, width) `size`."""

    size: tuple[int, int]
    first: Image.Image
    second: Image.Image
    homography: Homography

    def drawing(self, asked_n2: Floats, found_n2: Floats) -> Image.Image:
        """Both views side by side and a line for each of the first points."""
        height, width = self.size
        canvas = Image.new("RGB", (2 * width, height))
        canvas.paste(self.first, (0, 0))
        canvas.paste(self.second, (width, 0))
        pen = ImageDraw.Draw(canvas)
        starts = self.homography.to_first(asked_n2)
        errors = np.linalg.norm(found_n2 - asked_n2, axis=1)
        for start, end, error in list(zip(starts, found_n2 + (width, 0), errors, strict=True))[:DRAWN_POINTS]:
            color = (96, 211, 68) if error < NEAR_PX else (255, 183, 3) if error < FAR_PX else (230, 57, 70)
            pen.line([*start, *end], fill=color, width=1)
            pen.ellipse([start[0] - 2, start[1] - 2, start[0] + 2, start[1] + 2], outline=color)
        return canvas


def _answers(
    group: Sequence[Source], views: Sequence[Views], asked: Sequence[Floats], matched: Matched, context: Context
) -> Iterator[tuple[Source, int, Floats, tuple[int, int]]]:
    """Per source and view where it finds, in the second picture, the points that are truly at `asked` there, and its grid.

    The first picture is the same in all views, and goes through the networks once.
    """
    size = views[0].size
    size_hw = input_size(size[0], *size, group[0].encoder.size_multiple)
    at_once, chunk = context.batches.pictures(size_hw, context.device), context.batches.points(CHUNK)
    pictures = [views[0].first, *(view.second for view in views)]
    wanted: dict[str, list[Tensor]] = {}
    for places in batches(0, len(pictures), at_once):
        images = batch_of([pictures[place] for place in places], size_hw, context.device)
        for source, features in features_of(group, images):
            for index, place in enumerate(places):
                cells = joined_map(features.picture(index), matched)
                if place == 0:
                    first = [
                        torch.from_numpy(view.homography.to_first(points))
                        for view, points in zip(views, asked, strict=True)
                    ]
                    wanted[source.name] = [features_at(cells, points.to(cells.device), size) for points in first]
                    continue
                found = best_cells(wanted[source.name][place - 1], cells, size, chunk).cpu().numpy()
                yield source, place - 1, found, (cells.shape[-2], cells.shape[-1])
                context.step(1)


def _shares(found: Floats, truth: Floats, size: tuple[int, int], grid: tuple[int, int]) -> dict[str, float]:
    """Shares of answers within each threshold, and of the best answers that a grid can give."""
    height, width = size
    centers = nearest_cell_centers(to_benchmark_size(truth, height, width), grid) * (width / SIDE_PX, height / SIDE_PX)
    values: dict[str, float] = {}
    for name, mean, answers in (("within", "mean", found), ("ceiling", "ceiling", centers)):
        errors = np.linalg.norm(answers - truth, axis=1)
        shares = {f"{name}_{pixels}": float(np.mean(errors < pixels)) for pixels in THRESHOLDS_PX}
        values |= {mean: float(np.mean(list(shares.values()))), **shares}
    return values

"""Point tracking without training: is a point's feature enough to find the point in every other frame?

Videos with tracked points come in through `data/tracks.py`. A query's feature is read from its frame's map; in every
other frame, taken by itself, the cell with the largest cosine is the answer (`heads/matching.py`). The shares of answers within 1, 2, 4, 8
and 16 pixels go back per video, in both modes of TAP-Vid (`metrics/tracking.py`), beside their ceiling: what the best answer
that is the centre of a cell would score.

Coordinates are those of a 256x256 picture whatever the input's side, as in TAP-Vid-DAVIS (Doersch et al., NeurIPS 2022). An answer
at random is within 16 pixels in 1.2 % and within 1 pixel in 0.005 %. There is no smoothness over time and no guess of occlusion, so
average Jaccard and occlusion accuracy are not measured.

Maps are made twice, once for the frames that hold queries and once for all, so that no more than a batch of them is held:
4 frames, 0.13 GB each with 512 channels at 256 pixels. A video's own frames are held as well where they lie in one array.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from probes.data import tracks
from probes.data.batching import batches
from probes.data.images import batch_of, input_size
from probes.drawing import display_size, picked_frames
from probes.heads.joined import Matched, joined_map
from probes.heads.matching import CHUNK, best_cells, features_at
from probes.metrics.tracking import SIDE_PX, THRESHOLDS_PX, Mode, Queries, ceiling, queries, score_tracks
from probes.options import option
from probes.sources.features import Source, by_encoder, features_of
from probes.task import Context, Metric, Noun, Row, Settings, Task, Unit

Floats = NDArray[np.float64]
MODES: tuple[Mode, ...] = ("first", "strided")
BATCH_FRAMES = 4
DRAWN_POINTS = 40
NEAR_PX, FAR_PX = 4, 16
SIZE = (float(SIDE_PX), float(SIDE_PX))


def _metrics() -> tuple[Metric, ...]:
    columns = []
    for mode in MODES:
        columns.append(Metric(mode, f"δ {mode}", percent=True))
        columns.append(Metric(f"{mode}_ceiling", "its ceiling", percent=True))
    for mode in MODES:
        for pixels in THRESHOLDS_PX:
            columns.append(Metric(f"{mode}_{pixels:g}", f"{mode} < {pixels:g} px", percent=True))
            columns.append(Metric(f"{mode}_{pixels:g}_ceiling", "ceiling", percent=True))
    return tuple(columns)


@dataclass(frozen=True)
class Tracking(Task):
    """The probe as asked for on the command line."""

    name: ClassVar = "tracking"
    title: ClassVar = "Point tracking, without training"
    description: ClassVar = (
        "Every point is looked for in every other frame by the largest cosine of features. δ: mean share of points within 1, 2, 4, 8 "
        "and 16 pixels of a 256x256 picture; first: queries at a point's first visible frame; strided: at every fifth frame. "
        "Ceiling: what the best answers would score at the resolution of the features."
    )
    pictures_note: ClassVar = (
        "Rings are true places of points first seen in the first frames, lines lead to the answers: "
        f"green within {NEAR_PX} px, yellow within {FAR_PX} px, red farther off."
    )
    unit: ClassVar = Noun("video", "videos")
    part: ClassVar = Noun("set of points", "sets of points")
    step: ClassVar = Noun("map", "maps")
    metrics: ClassVar = _metrics()
    headline: ClassVar = "first"
    in_processes: ClassVar = True
    chance_note: ClassVar = "the place of the query in every frame"
    main_metrics: ClassVar = ("first", "first_ceiling", "strided", "strided_ceiling")

    embedded: ClassVar = {"root": "davis", "side_px": 128}

    root: Path | None = field(
        default=None,
        metadata=option(
            "--tracks", click.Path(path_type=Path), "tapvid_davis.pkl, or a folder of .npz files.", data=True
        ),
    )
    side_px: int = field(default=SIDE_PX, metadata=option("--height", int, "Side of the square input, px."))
    matched: Matched = field(
        default="both",
        metadata=option("--match", click.Choice(["both", "decoder"]), "Which features of sources with a decoder."),
    )

    def __post_init__(self) -> None:
        if self.side_px < 1:
            raise ValueError(f"tracking probe: height {self.side_px} must be at least 1 pixel")

    def settings(self) -> Settings:
        return {"height": self.side_px, "matched": self.matched}

    def chance(self, unit: Unit, seed: int) -> list[Row]:
        assert isinstance(unit, Video)
        values: dict[str, float] = {}
        for mode, asked in unit.asked.items():
            still = np.repeat(asked.positions(unit.places_nt2)[:, None], unit.video.frames, axis=1)
            score = score_tracks(still, unit.places_nt2, asked)
            if score is not None:
                shares = {f"{mode}_{px:g}": share for px, share in zip(THRESHOLDS_PX, score.delta, strict=True)}
                values |= {mode: score.average, **shares}
        return [Row("all points", values)] if values else []

    def about(self) -> Settings:
        return {"data": str(self.root)}

    def units(self) -> list[Video]:
        if self.root is None:
            raise ValueError(f"the tracking probe needs --tracks FILE or DIR: {tracks.EXPECTED}")
        found = [Video(self, video) for video in tracks.open_tracks(self.root)]
        usable = [video for video in found if video.asked["first"].counted_qt.any()]
        if not usable:
            raise ValueError(f"no point of {len(found)} videos in {self.root} is visible in two frames")
        return usable


@dataclass(frozen=True)
class Video:
    """One video and its queries."""

    task: Tracking
    video: tracks.TrackedVideo

    @property
    def name(self) -> str:
        return self.video.name

    @property
    def facts(self) -> Mapping[str, int]:
        return {"frames": self.video.frames, "points": len(self.video.points_nt2)}

    @property
    def steps(self) -> int:
        """Feature maps per source."""
        return len(self._query_frames()) + self.video.frames

    @property
    def places_nt2(self) -> Floats:
        """In pixels of the 256x256 picture."""
        return self.video.points_nt2 * SIDE_PX

    @property
    def asked(self) -> dict[Mode, Queries]:
        return {mode: queries(self.video.visible_nt, mode) for mode in MODES}

    def _query_frames(self) -> list[int]:
        return np.unique(np.concatenate([asked.frame_q for asked in self.asked.values()])).tolist()

    def fingerprint(self) -> str:
        return self.video.fingerprint()

    def evaluate(self, sources: Sequence[Source], context: Context) -> dict[str, list[Row]]:
        """One row per source: a video counts once, however many points it has."""
        frames = self.video.open()
        rows: dict[str, list[Row]] = {}
        for group in by_encoder(sources):
            grids, answers = self._answers(group, frames, context)
            for source in group:
                rows[source.name] = [Row("all points", self._values(answers[source.name], grids[source.name]))]
                self._draw(source, answers[source.name]["first"], frames, context)
        return rows

    def _maps(
        self, group: Sequence[Source], frames: tracks.Frames, indices: Sequence[int], context: Context
    ) -> Iterator[tuple[int, Source, Tensor]]:
        """(frame, source, map [c, g, f]) of the named frames."""
        size_hw = input_size(self.task.side_px, 1, 1, group[0].encoder.size_multiple)
        at_once = context.batches.pictures(size_hw, context.device, BATCH_FRAMES)
        for places in batches(0, len(indices), at_once):
            part = [indices[place] for place in places]
            images = batch_of([frames(index) for index in part], size_hw, context.device)
            for source, features in features_of(group, images):
                for place, index in enumerate(part):
                    yield index, source, joined_map(features.picture(place), self.task.matched)
            context.step(len(group) * len(part))

    def _answers(
        self, group: Sequence[Source], frames: tracks.Frames, context: Context
    ) -> tuple[dict[str, tuple[int, int]], dict[str, dict[Mode, Floats]]]:
        """By source the grid of its maps, and by mode the answers [q, t, 2] in pixels."""
        asked, places = self.asked, self.places_nt2
        frame_q = np.concatenate([asked[mode].frame_q for mode in MODES])
        position_q2 = torch.from_numpy(np.concatenate([asked[mode].positions(places) for mode in MODES]))
        features: dict[str, Tensor] = {}
        for index, source, cells in self._maps(group, frames, self._query_frames(), context):
            here = torch.from_numpy(frame_q == index)
            found = features_at(cells, position_q2[here].to(cells.device), SIZE)
            every = features.setdefault(source.name, found.new_zeros(len(frame_q), found.shape[1]))
            every[here.to(every.device)] = found
        grids: dict[str, tuple[int, int]] = {}
        answers = {source.name: np.zeros((len(frame_q), self.video.frames, 2)) for source in group}
        chunk = context.batches.points(CHUNK)
        for index, source, cells in self._maps(group, frames, range(self.video.frames), context):
            answers[source.name][:, index] = best_cells(features[source.name], cells, SIZE, chunk).cpu().numpy()
            grids[source.name] = cells.shape[-2], cells.shape[-1]
        border = len(asked["first"].frame_q)
        by_mode: dict[str, dict[Mode, Floats]] = {
            name: {"first": every[:border], "strided": every[border:]} for name, every in answers.items()
        }
        return grids, by_mode

    def _values(self, answers: Mapping[Mode, Floats], grid: tuple[int, int]) -> dict[str, float]:
        values: dict[str, float] = {}
        for mode, asked in self.asked.items():
            score = score_tracks(answers[mode], self.places_nt2, asked)
            best = ceiling(self.places_nt2, asked, grid)
            if score is None or best is None:
                continue
            values |= {mode: score.average, f"{mode}_ceiling": best.average}
            for pixels, share, most in zip(THRESHOLDS_PX, score.delta, best.delta, strict=True):
                values |= {f"{mode}_{pixels:g}": share, f"{mode}_{pixels:g}_ceiling": most}
        return values

    def _draw(self, source: Source, answers: Floats, frames: tracks.Frames, context: Context) -> None:
        asked, places = self.asked["first"], self.places_nt2
        drawn = np.linspace(0, len(answers) - 1, min(DRAWN_POINTS, len(answers))).astype(int)
        for index in picked_frames(self.video.frames) if self.video.frames > 2 else []:
            image = frames(index)
            size = display_size(image.height, image.width)
            scale = np.array(size) / SIDE_PX
            canvas = image.resize(size, Image.Resampling.BILINEAR)
            pen = ImageDraw.Draw(canvas)
            for query in drawn:
                if not asked.counted_qt[query, index]:
                    continue
                true, found = places[asked.point_q[query], index], answers[query, index]
                error = float(np.linalg.norm(true - found))
                color = (96, 211, 68) if error < NEAR_PX else (255, 183, 3) if error < FAR_PX else (230, 57, 70)
                (x, y), end = true * scale, found * scale
                pen.line([x, y, *end], fill=color, width=1)
                pen.ellipse([x - 3, y - 3, x + 3, y + 3], outline=color, width=2)
            context.pictures.save(f"frame {index:05d}", "tracks", canvas, source)

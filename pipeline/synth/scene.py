"""The geometry of a synthetic video as a function of (seed, index): masks, depth and exact flow at any time and on any pixel grid.

`Scene.create` draws the contents (`compose`) and re-draws the motions until every object can be seen; after that everything is
geometry: the nearest surface whose outline holds a point owns it, and flow follows that surface's affine motion (`motion`), in
float64. Where a surface is hidden in the other frame the flow is still that surface's. Whoever wants images builds a
`render.Renderer` of a scene, as `write` does for video files and DAVIS folders; the `truth` estimator asks scenes for flow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.synth.compose import Contents, Style, Surface, draw_contents, draw_motion
from pipeline.synth.motion import canonical_to_picture
from pipeline.video.geometry import crop_box, resized_size

GENERATOR_VERSION = 1
_ATTEMPTS = 40
_SEEN_AT_START, _SEEN_LATER = 0.65, 0.4  # smallest visible share of an object's area in frame 0 / in later frames


@dataclass(frozen=True)
class Grid:
    """Sampling positions: `rows` x `columns` cells that divide a rectangle of the image evenly, sampled at cell centres.

    left, top, width, height in image pixels, continuous (the image itself is 0, 0, W, H).
    """

    left: float
    top: float
    width: float
    height: float
    rows: int
    columns: int

    def xs(self) -> NDArray[np.float64]:
        return self.left + (np.arange(self.columns, dtype=np.float64) + 0.5) * (self.width / self.columns)

    def ys(self) -> NDArray[np.float64]:
        return self.top + (np.arange(self.rows, dtype=np.float64) + 0.5) * (self.height / self.rows)


def square_grid(width_px: int, height_px: int, image_size: int, flow_size: int) -> Grid:
    """The flow square of a width x height video, in that video's pixels.

    The frame is resized so that its shorter side is `image_size` (the longer is truncated to an integer, hence slightly
    different scales of x and y), the centre square is cut out and resized to `flow_size`, as in `pipeline.video.geometry`.
    """
    resized_w, resized_h = resized_size(width_px, height_px, image_size)
    left, top, _, _ = crop_box(resized_w, resized_h, image_size)
    x_scale, y_scale = width_px / resized_w, height_px / resized_h
    return Grid(left * x_scale, top * y_scale, image_size * x_scale, image_size * y_scale, flow_size, flow_size)


@dataclass(frozen=True)
class Scene:
    """Frames t = 0 .. frames - 1 of height x width pixels. Build with `create` or `from_record`."""

    seed: int
    index: int
    height: int
    width: int
    frames: int
    style: Style
    contents: Contents

    @classmethod
    def create(
        cls, seed: int, index: int, *, size: tuple[int, int] = (240, 320), frames: int = 24, style: Style | None = None
    ) -> Scene:
        """The index-th scene of a seed. size: (height, width). Raises ValueError for sizes or counts that cannot be rendered."""
        height, width = size
        if min(size) < 32 or max(size) > 4096:
            raise ValueError(
                f"a synthetic video of size {height}x{width} cannot be drawn; give sides between 32 and 4096 pixels"
            )
        if frames < 1:
            raise ValueError(f"frames is {frames}; a video needs at least one frame")
        if not (0 <= seed < 2**64 and 0 <= index < 2**32):
            raise ValueError(f"seed {seed}, index {index}: give a seed in 0..2^64-1 and an index in 0..2^32-1")
        style = style or Style()
        # always four words of 32 bits: SeedSequence takes (a, b + 2^32, 0) and (a, b, 1) for the same, and so would we
        words = (GENERATOR_VERSION, index, seed % 2**32, seed >> 32)
        rng = np.random.default_rng(np.random.SeedSequence(words))
        aspect = (width / 2 / min(size), height / 2 / min(size))
        scene = cls(seed, index, height, width, frames, style, draw_contents(rng, style, aspect))
        return _with_visible_objects(scene, rng, aspect)

    def record(self) -> dict[str, Any]:
        """JSON-able: all that is needed to build this scene again. Difficulty 0 is left out, as before there was one."""
        style = {name: value for name, value in asdict(self.style).items() if name != "difficulty" or value}
        return {
            "generator": "flowfeat-synthetic",
            "version": GENERATOR_VERSION,
            "seed": self.seed,
            "index": self.index,
            "height": self.height,
            "width": self.width,
            "frames": self.frames,
            "style": style,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Scene:
        """Inverse of `record`. Raises ValueError when the record is of another generator or version, or incomplete."""
        if record.get("generator") != "flowfeat-synthetic" or record.get("version") != GENERATOR_VERSION:
            found = f"{record.get('generator')!r} version {record.get('version')!r}"
            own = f"'flowfeat-synthetic' version {GENERATOR_VERSION}"
            raise ValueError(f"the scene was written by {found}, this is {own}; generate it again")
        try:
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record["style"].items()}
            style = Style(**fields)
            size = (int(record["height"]), int(record["width"]))
            return cls.create(
                int(record["seed"]), int(record["index"]), size=size, frames=int(record["frames"]), style=style
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the scene record is incomplete or damaged ({error!r}); generate it again") from error

    @property
    def surfaces(self) -> tuple[Surface, ...]:
        """From far to near."""
        return self.contents.surfaces

    @property
    def object_count(self) -> int:
        return sum(s.is_object for s in self.surfaces)

    def to_picture(self, surface: Surface, t: float) -> NDArray[np.float64]:
        """[3, 3] float64 homogeneous map from the surface's canonical coordinates to continuous image pixels at frame t."""
        if not 0 <= t <= self.frames - 1:
            raise ValueError(f"frame {t} is outside the scene's 0..{self.frames - 1}")
        middle = (self.frames - 1) / 2
        return canonical_to_picture(
            surface.motion, surface.depth, self.contents.camera, t - middle, width_px=self.width, height_px=self.height
        )

    def picture_grid(self) -> Grid:
        return Grid(0.0, 0.0, float(self.width), float(self.height), self.height, self.width)

    def owners(self, t: float, grid: Grid) -> NDArray[np.int64]:
        """[rows, columns] index into `surfaces` of the nearest surface at every sampling position."""
        xs, ys = grid.xs(), grid.ys()
        owner = np.zeros((grid.rows, grid.columns), np.int64)
        for i, surface in enumerate(self.surfaces):
            if surface.outline.family == "plane":
                owner[:] = i
                continue
            matrix = self.to_picture(surface, t)
            columns, rows = slice(0, grid.columns), slice(0, grid.rows)
            if surface.is_object:
                reach = surface.size * float(np.hypot(*matrix[:2, 0])) + 1e-6
                columns = slice(*np.searchsorted(xs, matrix[0, 2] + np.array([-reach, reach])))
                rows = slice(*np.searchsorted(ys, matrix[1, 2] + np.array([-reach, reach])))
            inverse = np.linalg.inv(matrix)
            x, y = xs[columns][None, :], ys[rows][:, None]
            u = (inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) / surface.size
            v = (inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) / surface.size
            owner[rows, columns][surface.outline.level(u, v) < 0] = i
        return owner

    def mask(self, t: float, grid: Grid | None = None) -> NDArray[np.uint8]:
        """[H, W] uint8: 0 background, 1..C the object whose visible surface covers the pixel's centre."""
        labels = np.array([s.label for s in self.surfaces], np.uint8)
        return labels[self.owners(t, grid or self.picture_grid())]

    def depth(self, t: float, grid: Grid | None = None) -> NDArray[np.float32]:
        """[H, W] float32 distance from the camera, scene units (about 2.7 to 10); a surface that grows comes nearer by the same ratio."""
        middle = (self.frames - 1) / 2
        depths = np.array([s.depth / s.motion.scale_at(t - middle) for s in self.surfaces])
        return depths[self.owners(t, grid or self.picture_grid())].astype(np.float32)

    def flow(
        self,
        t: float,
        t2: float,
        *,
        size: tuple[int, int] | None = None,
        crop: tuple[float, float, float, float] | None = None,
    ) -> NDArray[np.float32]:
        """[2, rows, columns] float32 flow (dx right, dy down) from frame t to frame t2, in pixels of the sampling grid.

        crop: (left, top, width, height) of the image in its pixels, the whole image when None; size: (rows, columns)
        of the grid laid over the crop, one cell per image pixel when None.
        """
        left, top, width, height = crop or (0.0, 0.0, float(self.width), float(self.height))
        rows, columns = size or (round(height), round(width))
        return self.flows(t, (t2,), Grid(left, top, width, height, rows, columns))[0]

    def flow_on_square(self, t: float, t2: float, image_size: int = 448, flow_size: int = 224) -> NDArray[np.float32]:
        """[2, flow_size, flow_size] float32 flow t → t2 in pixels of the square that the pipeline computes flow on (`square_grid`)."""
        return self.flows(t, (t2,), square_grid(self.width, self.height, image_size, flow_size))[0]

    def flows(self, t: float, others: Sequence[float], grid: Grid) -> NDArray[np.float32]:
        """[K, 2, rows, columns] float32 flow from t to each of K other frames, in pixels of the grid."""
        return self.exact_flows(t, others, grid).astype(np.float32)

    def exact_flows(self, t: float, others: Sequence[float], grid: Grid) -> NDArray[np.float64]:
        """`flows` before the cast, float64."""
        owner = self.owners(t, grid)
        x, y = grid.xs()[None, :], grid.ys()[:, None]
        per_px = np.array([grid.columns / grid.width, grid.rows / grid.height])
        flow = np.empty((len(others), 2, grid.rows, grid.columns))
        inverses = [np.linalg.inv(self.to_picture(surface, t)) for surface in self.surfaces]
        for k, t2 in enumerate(others):
            steps = [
                self.to_picture(s, t2) @ inverse - np.eye(3) for s, inverse in zip(self.surfaces, inverses, strict=True)
            ]
            step = np.stack(steps)[:, :2] * per_px[:, None]  # [surfaces, 2, 3]: displacement = step @ (x, y, 1)
            for c in range(2):
                a, b, d = (step[:, c, j][owner] for j in range(3))
                flow[k, c] = a * x + b * y + d
        return flow


def _seen_share(scene: Scene) -> NDArray[np.float64]:
    """[checks, C] visible share of each object's whole area, at five times from the first to the last frame."""
    rows = 56
    columns = max(round(rows * scene.width / scene.height), 8)
    grid = replace(scene.picture_grid(), rows=rows, columns=columns)
    cell_px = (scene.width / columns) * (scene.height / rows)
    objects = sorted((s for s in scene.surfaces if s.is_object), key=lambda s: s.label)
    ticks = (np.arange(64) + 0.5) / 32 - 1
    x, y = np.meshgrid(ticks, ticks)
    unit_area = [4 * float((s.outline.level(x, y) < 0).mean()) for s in objects]
    shares = []
    for t in np.linspace(0, scene.frames - 1, 5).round():
        mask = scene.mask(t, grid)
        seen_px = np.array([(mask == s.label).sum() for s in objects]) * cell_px
        growth = [s.size**2 * np.linalg.det(scene.to_picture(s, t)[:2, :2]) for s in objects]
        whole_px = np.array(unit_area) * growth
        shares.append(seen_px / whole_px)
    return np.array(shares)


def _with_visible_objects(scene: Scene, rng: np.random.Generator, aspect: tuple[float, float]) -> Scene:
    """Draw the motions of badly visible objects again until all are seen; after `_ATTEMPTS` the best draw stands."""
    best, best_margin = scene, -np.inf
    need = np.array([_SEEN_AT_START, *[_SEEN_LATER] * 4])[:, None]
    for _ in range(_ATTEMPTS):
        margins = (_seen_share(scene) - need).min(axis=0)  # [C]
        if margins.min() > best_margin:
            best, best_margin = scene, float(margins.min())
        if best_margin >= 0:
            break
        again = {label for label, margin in enumerate(margins, start=1) if margin < 0}
        surfaces = tuple(
            replace(s, motion=draw_motion(rng, scene.style, aspect)) if s.label in again else s for s in scene.surfaces
        )
        scene = replace(scene, contents=replace(scene.contents, surfaces=surfaces))
    return best

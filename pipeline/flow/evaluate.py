"""How wrong an estimator is where the truth is known: EPE, Fl-all and 1px over benchmark folders.

Finds pairs with ground truth in the layouts of Middlebury, FlyingChairs, KITTI, Sintel and
FlyingThings under one directory, runs the estimator at full size, compares. Conventions are those
of the usual evaluation: EPE is the mean over pairs of a pair's mean error (for one size of frame the
same as the mean over pixels); the outlier rates pool all pixels of a set.

Shape legend: H W rows and columns, C = 2 channels (dx right, dy down).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.flow.estimator import FlowEstimator
from pipeline.flow.files import read_flow
from pipeline.window import Window


@dataclass(frozen=True)
class Pair:
    """Two frames and the true flow from the first to the second. set_name: the data set and, where it matters, its folder."""

    set_name: str
    name: str
    first: Path
    second: Path
    truth: Path


@dataclass(frozen=True)
class PairScore:
    """One pair: mean end-point error in pixels (None where no estimate is finite), counts of outliers and known pixels."""

    pair: Pair
    epe_px: float | None
    fl_outliers: int
    over_1px: int
    known_pixels: int
    non_finite: int


@dataclass(frozen=True)
class SetScore:
    """EPE in pixels, Fl-all and 1px in percent (KITTI: error > 3 px and > 5 % of the motion; error > 1 px).

    without_flow: pairs without a single finite estimate. They count as outliers and have no part in the EPE, which is
    None if there are no others.
    """

    name: str
    pairs: int
    without_flow: int
    epe_px: float | None
    fl_all_percent: float
    over_1px_percent: float
    non_finite: int


def find_pairs(data: Path) -> list[Pair]:
    """Every pair with ground truth under `data`, sorted. Raises ValueError when there is none."""
    if not data.is_dir():
        raise ValueError(f"no directory {data}")
    finders = (_middlebury, _chairs, _kitti, _sintel, _things, _plain)
    found = sorted({pair for finder in finders for pair in finder(data)}, key=lambda pair: (pair.set_name, pair.name))
    if not found:
        raise ValueError(
            f"no flow ground truth under {data}; known layouts: Middlebury (other-gt-flow/*/flow10.flo), FlyingChairs "
            f"(*_flow.flo), KITTI (flow_occ/*_10.png), Sintel (flow/*/frame_*.flo), FlyingThings (optical_flow/**/*.pfm), "
            f"or folders with frame1, frame2 and flow_gt"
        )
    return found


def _all_there(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Only pairs with both frames: published sets hold ground truth without frames and the reverse."""
    return (pair for pair in pairs if pair.first.is_file() and pair.second.is_file())


def _named(layout: str, data: Path, root: Path) -> str:
    relative = root.relative_to(data).as_posix()
    return layout if relative in (".", layout) else f"{layout} ({relative})"


def _middlebury(data: Path) -> Iterator[Pair]:
    for truth in data.rglob("other-gt-flow/*/flow10.flo"):
        root, scene = truth.parents[2], truth.parent.name
        frames = root / "other-data" / scene
        yield from _all_there(
            [Pair(_named("middlebury", data, root), scene, frames / "frame10.png", frames / "frame11.png", truth)]
        )


def _chairs(data: Path) -> Iterator[Pair]:
    for ending, first, second in (("_flow.flo", "_img1.ppm", "_img2.ppm"), ("-gt.flo", "-img0.ppm", "-img1.ppm")):
        for truth in data.rglob(f"*{ending}"):
            number = truth.name.removesuffix(ending)
            set_name = _named("flyingchairs", data, truth.parent)
            frames = (truth.with_name(number + first), truth.with_name(number + second))
            yield from _all_there([Pair(set_name, number, *frames, truth)])


def _kitti(data: Path) -> Iterator[Pair]:
    for truth in data.rglob("flow_occ/*_10.png"):
        root, number = truth.parents[1], truth.name.removesuffix("_10.png")
        for folder in ("image_2", "colored_0", "image_0"):  # 2015, 2012 in colour, 2012 in grey
            frames = (root / folder / f"{number}_10.png", root / folder / f"{number}_11.png")
            if frames[0].is_file():
                yield from _all_there([Pair(_named("kitti", data, root), number, *frames, truth)])
                break


def _sintel(data: Path) -> Iterator[Pair]:
    for truth in data.rglob("flow/*/frame_*.flo"):
        root, scene, number = truth.parents[2], truth.parent.name, int(truth.stem.removeprefix("frame_"))
        for rendering in ("clean", "final"):
            frames = [root / rendering / scene / f"frame_{n:04d}.png" for n in (number, number + 1)]
            set_name = f"{_named('sintel', data, root)} {rendering}"
            yield from _all_there([Pair(set_name, f"{scene}/{number:04d}", frames[0], frames[1], truth)])


def _things(data: Path) -> Iterator[Pair]:
    for truth in data.rglob("optical_flow/*/*/*/into_future/*/OpticalFlowIntoFuture_*.pfm"):
        split, letter, scene, _, camera, _ = truth.parts[-6:]
        root, number = truth.parents[6], int(truth.stem.split("_")[1])
        frames = [
            root / "frames_cleanpass" / split / letter / scene / camera / f"{n:04d}.png" for n in (number, number + 1)
        ]
        name = f"{split}/{letter}/{scene}/{camera}/{number:04d}"
        yield from _all_there([Pair(_named("flyingthings", data, root), name, frames[0], frames[1], truth)])


def _plain(data: Path) -> Iterator[Pair]:
    """A folder with frame1, frame2 and flow_gt, in whatever format: for one's own checks."""
    for truth in (path for suffix in ("flo", "png", "pfm") for path in data.rglob(f"flow_gt.{suffix}")):
        folder = truth.parent
        yield from _all_there(
            [Pair(_named("plain", data, folder), folder.name, folder / "frame1.png", folder / "frame2.png", truth)]
        )


def read_frame(path: Path) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 RGB. Raises ValueError naming the file."""
    if not path.is_file():
        raise ValueError(f"no image at {path}")
    frame = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if frame is None:
        raise ValueError(f"{path} is not a readable image")
    return np.ascontiguousarray(frame[..., ::-1], np.uint8)


def pair_window(first_hwc: NDArray[np.uint8], second_hwc: NDArray[np.uint8], path: Path, index: int = 0) -> Window:
    """The two frames as a window with one neighbour. Raises ValueError if their sizes differ."""
    if first_hwc.shape != second_hwc.shape:
        sizes = " and ".join(f"{frame.shape[1]}×{frame.shape[0]}" for frame in (first_hwc, second_hwc))
        raise ValueError(f"{path}: the two frames differ in size ({sizes} px)")
    return Window(path.name, path, (1,), index, (index + 1,), 0.0, (1.0,), first_hwc, second_hwc[None])


def score_pair(estimator: FlowEstimator, pair: Pair) -> PairScore:
    """Estimate and compare. A non-finite estimate counts as an outlier and is left out of the mean error."""
    truth_chw, known_hw = read_flow(pair.truth)
    window = pair_window(read_frame(pair.first), read_frame(pair.second), pair.first)
    if window.anchor_hwc.shape[:2] != known_hw.shape:
        raise ValueError(f"{pair.truth} and {pair.first} differ in size")
    if not known_hw.any():
        raise ValueError(f"{pair.truth} holds no known flow")
    flow_chw = estimator.estimate([window])[0].flow_kchw[0]
    error = np.hypot(*(flow_chw.astype(np.float64) - truth_chw))[known_hw]
    motion = np.hypot(*truth_chw.astype(np.float64))[known_hw]
    finite = np.isfinite(error)
    outlier = ~finite | ((error > 3) & (error > 0.05 * motion))
    return PairScore(
        pair,
        epe_px=float(error[finite].mean()) if finite.any() else None,
        fl_outliers=int(outlier.sum()),
        over_1px=int((~finite | (error > 1)).sum()),
        known_pixels=int(known_hw.sum()),
        non_finite=int((~finite).sum()),
    )


def summarise(name: str, scores: list[PairScore]) -> SetScore:
    """One line of the table."""
    pixels = max(1, sum(score.known_pixels for score in scores))
    errors_px = [score.epe_px for score in scores if score.epe_px is not None]
    return SetScore(
        name,
        len(scores),
        len(scores) - len(errors_px),
        float(np.mean(errors_px)) if errors_px else None,
        100 * sum(score.fl_outliers for score in scores) / pixels,
        100 * sum(score.over_1px for score in scores) / pixels,
        sum(score.non_finite for score in scores),
    )


def by_set(scores: list[PairScore]) -> list[SetScore]:
    """A SetScore per set in order of name, and the total over all pairs last."""
    names = sorted({score.pair.set_name for score in scores})
    sets = [summarise(name, [score for score in scores if score.pair.set_name == name]) for name in names]
    return [*sets, summarise("total", scores)]

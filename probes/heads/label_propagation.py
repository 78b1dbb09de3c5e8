"""Label propagation: object masks of a video's first frame, carried on by nearest neighbours among patch features.

Feature maps come in frame by frame on one grid, with the first frame's annotation; a soft label map on that grid goes out for
every later frame, and `label_map` turns it into labels at the original size. Nothing is trained (Jabri et al., NeurIPS 2020;
the evaluation of DINO, Caron et al., ICCV 2021). For a target cell q and source cells p of the context frames (the first
frame and the latest `context_frames`), with unit features x:

    a(p, q) = exp(x_p . x_q / T)  if p lies in the window around q and is among the `neighbors` best of all context frames
              (ties with the last of them are kept), else 0
    y(q)    = sum_p a(p, q) y(p) / sum_p a(p, q)

and the soft y is what later frames see. FlowFeat (NeurIPS 2025, section B.2) runs this for the encoder's and the decoder's
features separately and averages the two label maps; each keeps its own queue, the average only goes out.

DAVIS is scored under two published sets of settings, `DINO480` and `DINOV3_960`; their scores do not compare.

Memory: targets are taken in tiles of 16 x 16 cells with the sources their windows reach, (16 + 2 radius)^2 cells per context
frame. With radius 12 and 8 frames that is 13 MB of affinities, held four times at the most, and 5 MB of features per 100 channels,
whatever the picture's size, besides the queue itself (8 feature maps) and a copy of it (`bench/probe_memory.py` measures it).

Shape legend: t context frames, d feature channels, c classes (0 is background), (g, f) cells of the grid, n targets and
s sources (per frame) of a tile, (h, w) pixels.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

TILE = 16
"""Side, in cells, of the square of targets that are matched at a time."""

IGNORED = 255
"""Label of pixels that belong to nothing (DAVIS); they count as background."""


@dataclass(frozen=True)
class PropagationSettings:
    """One published set of settings: the matching, and the sizes before and after it. Distances are in cells of the grid."""

    name: str
    window: Literal["square", "circle"]
    radius: int
    temperature: float
    neighbors: int
    context_frames: int
    upsampling: Literal["bilinear", "nearest"]
    short_side_px: int
    long_step_px: int | None
    """The longer side is rounded down to a multiple of this; None: both sides are rounded up to what the network takes."""
    resize: Literal["bilinear", "bicubic"]
    pixel_std: tuple[float, float, float]
    """Divisor of RGB / 255 after the ImageNet mean; DINO's script has 0.228 for red where everything else has 0.229."""

    def input_size(self, height: int, width: int, multiple: int) -> tuple[int, int]:
        """Height and width to resize a frame to, for a network that takes multiples of `multiple` pixels.

        Where DINO's own sizes (480, steps of 64) are no such multiples, both sides are rounded down to what is one:
        854x480 becomes 832x480 for multiples of 32, 840x476 for 28.
        """
        short, long = min(height, width), max(height, width)
        if self.long_step_px is None:
            new_short = math.ceil(self.short_side_px / multiple) * multiple
            new_long = math.ceil(long * new_short / short / multiple) * multiple
        else:
            step = self.long_step_px if self.long_step_px % multiple == 0 else multiple
            new_short = self.short_side_px // multiple * multiple
            new_long = self.short_side_px * long // (short * step) * step
        return (new_short, new_long) if height <= width else (new_long, new_short)


DINO480 = PropagationSettings(
    name="dino480", window="square", radius=12, temperature=0.1, neighbors=5, context_frames=7, upsampling="bilinear",
    short_side_px=480, long_step_px=64, resize="bilinear", pixel_std=(0.228, 0.224, 0.225),
)  # fmt: skip
"""DINO's video script, which FlowFeat's table follows."""

DINOV3_960 = PropagationSettings(
    name="dinov3-960", window="circle", radius=12, temperature=0.2, neighbors=5, context_frames=7, upsampling="nearest",
    short_side_px=960, long_step_px=None, resize="bicubic", pixel_std=(0.229, 0.224, 0.225),
)  # fmt: skip
"""DINOv3's tracking notebook."""

SETTINGS = {settings.name: settings for settings in (DINO480, DINOV3_960)}


def _in_window(
    rows_n: Tensor, columns_n: Tensor, rows_s: Tensor, columns_s: Tensor, rules: PropagationSettings
) -> Tensor:
    """bool [n, s]: whether source s lies in the window around target n. The edge of the window belongs to it."""
    down = (rows_n[:, None] - rows_s[None, :]).abs()
    across = (columns_n[:, None] - columns_s[None, :]).abs()
    if rules.window == "square":
        return torch.maximum(down, across) <= rules.radius
    return down**2 + across**2 <= rules.radius**2


def _cells(rows: slice, columns: slice, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of every cell of a rectangle, row by row."""
    grid = torch.meshgrid(
        torch.arange(rows.start, rows.stop, device=device),
        torch.arange(columns.start, columns.stop, device=device),
        indexing="ij",
    )
    return grid[0].flatten(), grid[1].flatten()


def _propagate_tile(
    target_dgf: Tensor,
    context_tdgf: Tensor,
    labels_tcgf: Tensor,
    rows: slice,
    columns: slice,
    rules: PropagationSettings,
) -> Tensor:
    """Soft labels [c, n] of the targets in one rectangle of cells."""
    g, f = target_dgf.shape[-2:]
    near_rows = slice(max(rows.start - rules.radius, 0), min(rows.stop + rules.radius, g))
    near_columns = slice(max(columns.start - rules.radius, 0), min(columns.stop + rules.radius, f))
    targets_nd = target_dgf[:, rows, columns].flatten(1).T
    sources_tds = context_tdgf[:, :, near_rows, near_columns].flatten(2)
    labels_tsc = labels_tcgf[:, :, near_rows, near_columns].flatten(2).transpose(1, 2)
    device = target_dgf.device
    window_ns = _in_window(*_cells(rows, columns, device), *_cells(near_rows, near_columns, device), rules)
    # One product per frame, of one shape: equal features give equal bits in every frame, so a still video's ties stay ties.
    cosine_tns = torch.bmm(targets_nd.expand(len(sources_tds), -1, -1), sources_tds)
    cosine_np = cosine_tns.masked_fill_(~window_ns, -math.inf).transpose(0, 1).flatten(1)
    last_kept = cosine_np.topk(min(rules.neighbors, cosine_np.shape[1]), dim=1).values[:, -1:]
    # softmax of the kept cosines is exp(cos / T) normalised to sum 1; the others get weight 0.
    weights_np = cosine_np.masked_fill_(cosine_np < last_kept, -math.inf).div_(rules.temperature).softmax(dim=1)
    return (weights_np @ labels_tsc.flatten(0, 1)).T


def propagate(target_dgf: Tensor, context_tdgf: Tensor, labels_tcgf: Tensor, rules: PropagationSettings) -> Tensor:
    """Soft labels [c, g, f] of one frame from those of its context frames; features must have unit length per cell."""
    assert context_tdgf.shape[1:] == target_dgf.shape, (context_tdgf.shape, target_dgf.shape)
    assert labels_tcgf.shape[0] == context_tdgf.shape[0], (labels_tcgf.shape, context_tdgf.shape)
    g, f = target_dgf.shape[-2:]
    soft_cgf = labels_tcgf.new_empty(labels_tcgf.shape[1], g, f)
    for top in range(0, g, TILE):
        for left in range(0, f, TILE):
            rows, columns = slice(top, min(top + TILE, g)), slice(left, min(left + TILE, f))
            soft_cn = _propagate_tile(target_dgf, context_tdgf, labels_tcgf, rows, columns, rules)
            soft_cgf[:, rows, columns] = soft_cn.unflatten(1, (rows.stop - rows.start, columns.stop - columns.start))
    return soft_cgf


class LabelPropagator:
    """The queue of one feature map: the first frame for ever, and the latest `context_frames` frames."""

    def __init__(self, first_dgf: Tensor, first_labels_cgf: Tensor, rules: PropagationSettings) -> None:
        assert first_dgf.shape[-2:] == first_labels_cgf.shape[-2:], (first_dgf.shape, first_labels_cgf.shape)
        self.rules = rules
        self._first = (F.normalize(first_dgf, dim=0), first_labels_cgf.to(first_dgf))
        self._recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=rules.context_frames)

    @torch.no_grad()
    def step(self, features_dgf: Tensor) -> Tensor:
        """Soft labels [c, g, f] of the next frame, which then joins the queue.

        Raises
        ------
        ValueError: a feature is not finite, or the grid has changed.
        """
        if features_dgf.shape != self._first[0].shape:
            raise ValueError(
                f"features of {tuple(features_dgf.shape)}, the first frame had {tuple(self._first[0].shape)}"
            )
        if not bool(torch.isfinite(features_dgf).all()):
            raise ValueError("the features are not finite (NaN or infinity): is the checkpoint intact?")
        target = F.normalize(features_dgf, dim=0)
        context = [self._first, *self._recent]
        features, labels = (torch.stack(maps) for maps in zip(*context, strict=True))
        soft_cgf = propagate(target, features, labels, self.rules)
        self._recent.append((target, soft_cgf))
        return soft_cgf


def propagate_video(
    frames: Iterable[Sequence[Tensor]], first_labels_cgf: Tensor, rules: PropagationSettings
) -> Iterator[Tensor]:
    """Soft labels [c, g, f] of frames 1, 2, ... of a video, one at a time.

    Each frame is a list of feature maps [d, g, f] on one grid: the encoder's alone, or the encoder's and the decoder's.
    Every map is propagated by itself; their mean goes out and is not fed back.
    """
    propagators: list[LabelPropagator] = []
    for maps in frames:
        if not propagators:
            propagators = [LabelPropagator(features, first_labels_cgf, rules) for features in maps]
            continue
        soft = [propagator.step(features) for propagator, features in zip(propagators, maps, strict=True)]
        yield torch.stack(soft).mean(dim=0)


def on_grid(map_bkhw: Tensor, grid: tuple[int, int]) -> Tensor:
    """A feature map on another grid: the mean of each cell's area on a coarser one, bilinear on a finer one.

    Coarser: a decoder's pixels to tokens. Finer: tokens to the doubled grid of FlowFeat's Table 6.
    """
    size = (map_bkhw.shape[-2], map_bkhw.shape[-1])
    if size == grid:
        return map_bkhw
    if grid[0] <= size[0] and grid[1] <= size[1]:
        return F.interpolate(map_bkhw, size=grid, mode="area")
    return F.interpolate(map_bkhw, size=grid, mode="bilinear", align_corners=False)


def _nearest(labels_hw: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Labels at another size: Pillow's NEAREST, as in DINO's script, with its rounding where a middle falls on an edge."""
    return np.asarray(Image.fromarray(labels_hw).resize((size[1], size[0]), Image.Resampling.NEAREST))


def first_labels(annotation_hw: NDArray[np.uint8], grid: tuple[int, int]) -> Tensor:
    """One-hot labels float32 [c, g, f] of an annotation: each cell has the label at its middle; c = largest label + 1.

    The number of classes is that of the whole annotation: an object too small for the grid keeps its (empty) channel.
    """
    labels = np.where(annotation_hw == IGNORED, 0, annotation_hw).astype(np.uint8)
    cells = torch.from_numpy(_nearest(labels, grid).astype(np.int64))
    return F.one_hot(cells, int(labels.max()) + 1).movedim(-1, 0).float()


def stretched(soft_chw: Tensor) -> Tensor:
    """Every channel brought to [0, 1] by its least and greatest value; a constant channel stays as it is."""
    least = soft_chw.amin(dim=(1, 2), keepdim=True)
    span = soft_chw.amax(dim=(1, 2), keepdim=True) - least
    return torch.where(span > 0, (soft_chw - least) / span, soft_chw)


def upsampled(soft_cgf: Tensor, size: tuple[int, int], rules: PropagationSettings) -> Tensor:
    """Soft labels [c, h, w] at `size`, each channel stretched to [0, 1]."""
    mode, corners = (rules.upsampling, False) if rules.upsampling == "bilinear" else (rules.upsampling, None)
    return stretched(F.interpolate(soft_cgf[None], size=size, mode=mode, align_corners=corners)[0])


def label_map(
    soft_cgf: Tensor, input_size: tuple[int, int], original_size: tuple[int, int], rules: PropagationSettings
) -> NDArray[np.uint8]:
    """Labels uint8 [h, w] at the frame's original size.

    Bilinear settings decide at the network's input size and take the nearest label from there; nearest settings go from the
    grid to the original size at once.
    """
    size = input_size if rules.upsampling == "bilinear" else original_size
    labels = upsampled(soft_cgf, size, rules).argmax(dim=0).to(torch.uint8).cpu().numpy()
    return _nearest(labels, original_size)

"""Zero-shot matching: where in one picture's feature map is a point of another picture? At the most similar cell.

A feature map and points of the first picture come in, then maps of other pictures; positions in pixels go out, for point
tracking (`track`) and for correspondence between two views. Nothing is trained: a point's feature is read from its map
bilinearly, and its match is the middle of the cell with the largest cosine. So no answer is finer than the grid; the score
that is left to reach is `probes.metrics.tracking.ceiling`.

Memory: cosines of at most `chunk` points with a whole map (256 x 256 cells: 67 MB), and a unit copy of the map.

Coordinates are (x, y) in pixels of a picture of `size` (height, width), its upper left corner at (0, 0). Shape legend: d feature
channels, (g, f) cells, n points, t frames.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 256


def features_at(map_dgf: Tensor, points_n2: Tensor, size: tuple[float, float]) -> Tensor:
    """[n, d]: the map read bilinearly between the middles of its cells; beyond the outermost ones, their value."""
    extent = points_n2.new_tensor([size[1], size[0]])
    place = (2 * points_n2 / extent - 1).to(map_dgf)
    sampled = F.grid_sample(map_dgf[None], place[None, :, None], padding_mode="border", align_corners=False)
    return sampled[0, :, :, 0].T


def best_cells(features_nd: Tensor, map_dgf: Tensor, size: tuple[float, float], chunk: int = CHUNK) -> Tensor:
    """[n, 2]: the middle, in pixels, of the cell whose feature has the largest cosine with each given one.

    chunk: points whose cosines are held at once.

    Raises
    ------
    ValueError: a feature isn't finite.
    """
    for features in (features_nd, map_dgf):
        if not bool(torch.isfinite(features).all()):
            raise ValueError("the features are not finite (NaN or infinity): is the checkpoint intact?")
    g, f = map_dgf.shape[-2:]
    unit_dm = F.normalize(map_dgf.flatten(1), dim=0)
    # The length of a point's own feature doesn't change which cell is best.
    best_n = torch.cat([(part @ unit_dm).argmax(dim=1) for part in features_nd.split(chunk)])
    cells = torch.stack([best_n % f, best_n // f], dim=1)
    scale = torch.tensor([size[1] / f, size[0] / g], dtype=torch.float64, device=cells.device)
    return (cells + 0.5) * scale


@torch.no_grad()
def track(features_nd: Tensor, maps: Iterable[Tensor], size: tuple[float, float]) -> Tensor:
    """[n, t, 2] in float64: the best cell of each point in each frame's map [d, g, f], every frame by itself."""
    return torch.stack([best_cells(features_nd, map_dgf, size) for map_dgf in maps], dim=1)

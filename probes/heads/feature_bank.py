"""Dense nearest-neighbour segmentation without training: a bank of labelled patch features, asked for the 30 nearest.

Feature grids of the training pictures come in with their label maps and fill the bank; features of another picture come in and
class probabilities per cell go out (Balazevic et al., NeurIPS 2023, "Hummingbird"; the settings are those of the open
re-implementation by Pariza et al.):

    bank      unit features x_i with y_i, the share of every class among the labelled pixels of the cell
    answer    y(q) = sum_i w_i y_i over the k = 30 nearest by cosine,  w = softmax(x_i . q / 0.02)

The bank has a capacity (10.24 million cells in the protocol). Each of the N pictures it is announced gets an equal part,
floor(capacity / N) cells; of a picture with more cells those are kept whose score is least,

    score = u * sum over the classes c in the cell of #{cells of this picture that contain c},   u uniform in [0, 1)

so rare classes stay. Ignored pixels have no class: they count in no share, and a cell without a labelled pixel is left out.
(The re-implementation turns them into class 0; that is wrong wherever 0 isn't background.)

Memory: (d + c) * 4 bytes a cell of the bank, taken in blocks as it fills (`capacity_within` gives the capacity for a number of
bytes); a search goes block by block with at most `QUERY_ROWS` x `BLOCK_ROWS` cosines at a time (64 MB), keeping the k best.

Shape legend: b pictures, d feature channels, c classes, (g, f) cells, (h, w) pixels, q queries, k neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_ROWS = 16384
QUERY_ROWS = 1024
IGNORED = 255


@dataclass(frozen=True)
class BankSettings:
    """The Hummingbird protocol's numbers."""

    neighbors: int = 30
    temperature: float = 0.02
    capacity: int = 10_240_000


HUMMINGBIRD = BankSettings()


def capacity_within(size_bytes: int, channels: int, classes: int) -> int:
    """Cells that fit into so many bytes: 2 million for 384 channels and 150 classes in 4.3 GB."""
    return size_bytes // (4 * (channels + classes))


def class_shares(labels_bhw: Tensor, classes: int, grid: tuple[int, int], ignored: int = IGNORED) -> Tensor:
    """Float32 [b, c, g, f]: share of each class among the labelled pixels of each cell; 0 for all where there is none.

    A pixel belongs to the cell that its upper left corner lies in, so the labels need not be a multiple of the grid.

    Raises
    ------
    ValueError: a label outside the class list, or fewer pixels than cells.
    """
    b, h, w = labels_bhw.shape
    g, f = grid
    if h < g or w < f:
        raise ValueError(f"labels of {h}x{w} are coarser than the features' {g}x{f} cells")
    labels = labels_bhw.long()
    labelled = labels != ignored
    if bool((labelled & ((labels < 0) | (labels >= classes))).any()):
        worst = labels[labelled & ((labels < 0) | (labels >= classes))][0].item()
        raise ValueError(f"label {worst} is outside the class list (0 to {classes - 1}); {ignored} is ignored")
    rows = torch.arange(h, device=labels.device) * g // h
    columns = torch.arange(w, device=labels.device) * f // w
    cell = (rows[:, None] * f + columns[None, :]).expand(b, h, w)
    picture = torch.arange(b, device=labels.device)[:, None, None]
    index = ((picture * g * f + cell) * classes + labels)[labelled]
    counts = torch.bincount(index, minlength=b * g * f * classes).reshape(b, g, f, classes).movedim(-1, 1).float()
    return counts / counts.sum(dim=1, keepdim=True).clamp(min=1)


class FeatureBank:
    """Labelled features of the training pictures. `pictures` is how many will be added; the capacity is divided by it."""

    def __init__(
        self, channels: int, classes: int, pictures: int, settings: BankSettings = HUMMINGBIRD, *, seed: int = 0
    ) -> None:
        if settings.capacity < pictures:
            raise ValueError(f"a bank of {settings.capacity} cells has no room for one of each of {pictures} pictures")
        self.channels, self.classes, self.settings = channels, classes, settings
        self.cells_per_picture = settings.capacity // pictures
        self.pictures_left = pictures
        self._random = torch.Generator().manual_seed(seed)
        self._blocks: list[tuple[Tensor, Tensor]] = []
        self._filled = 0
        """Rows in use of the last block; all others are full."""

    def __len__(self) -> int:
        return max(len(self._blocks) - 1, 0) * BLOCK_ROWS + self._filled

    @torch.no_grad()
    def add(self, features_bdgf: Tensor, labels_bhw: Tensor, ignored: int = IGNORED) -> None:
        """Store the cells of some pictures: all of them, or the part that the capacity allows.

        Raises
        ------
        ValueError: more pictures than announced, a label outside the class list, a feature that isn't finite.
        """
        b = len(features_bdgf)
        if b > self.pictures_left:
            raise ValueError(f"{b} more pictures for a bank that expects {self.pictures_left}")
        if features_bdgf.shape[1] != self.channels:
            raise ValueError(f"features of {features_bdgf.shape[1]} channels for a bank of {self.channels}")
        _require_finite(features_bdgf)
        grid = (features_bdgf.shape[-2], features_bdgf.shape[-1])
        shares = class_shares(labels_bhw.to(features_bdgf.device), self.classes, grid, ignored)
        self.pictures_left -= b
        for features, share in zip(features_bdgf, shares, strict=True):
            cells_nd, shares_nc = features.flatten(1).T, share.flatten(1).T
            kept = self._choose(shares_nc)
            self._store(F.normalize(cells_nd[kept].float(), dim=1), shares_nc[kept])

    def _choose(self, shares_nc: Tensor) -> Tensor:
        """Indices of the cells of one picture that go into the bank, in the order of the grid."""
        occurs_nc = shares_nc > 0
        labelled = occurs_nc.any(dim=1)
        usable = labelled.nonzero()[:, 0]
        # Drawn for every cell, on the CPU: the choice depends on the seed and the pictures' order alone.
        uniform = torch.rand(len(shares_nc), generator=self._random).to(shares_nc.device)
        if len(usable) <= self.cells_per_picture:
            return usable
        score = uniform * (occurs_nc.float() @ occurs_nc.sum(dim=0).float())
        least = score[usable].topk(self.cells_per_picture, largest=False).indices
        return usable[least].sort().values

    def _store(self, features_nd: Tensor, shares_nc: Tensor) -> None:
        start = 0
        while start < len(features_nd):
            if not self._blocks or self._filled == BLOCK_ROWS:
                block = (
                    features_nd.new_empty(BLOCK_ROWS, self.channels),
                    shares_nc.new_empty(BLOCK_ROWS, self.classes),
                )
                self._blocks.append(block)
                self._filled = 0
            taken = min(BLOCK_ROWS - self._filled, len(features_nd) - start)
            rows = slice(self._filled, self._filled + taken)
            self._blocks[-1][0][rows] = features_nd[start : start + taken]
            self._blocks[-1][1][rows] = shares_nc[start : start + taken]
            start, self._filled = start + taken, self._filled + taken

    def _used(self, number: int) -> tuple[Tensor, Tensor]:
        """Features and shares of one block, without the rows that are still empty."""
        features, shares = self._blocks[number]
        rows = self._filled if number == len(self._blocks) - 1 else BLOCK_ROWS
        return features[:rows], shares[:rows]

    def nearest(self, queries_qd: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and shares of the k nearest cells of each query of unit length: [q, k] and [q, k, c], best first."""
        cosine_qk = queries_qd.new_empty(len(queries_qd), 0)
        index_qk = torch.empty(len(queries_qd), 0, dtype=torch.int64, device=queries_qd.device)
        for number in range(len(self._blocks)):
            features, _ = self._used(number)
            found = (queries_qd @ features.T).topk(min(self.settings.neighbors, len(features)), dim=1)
            cosine_qk = torch.cat([cosine_qk, found.values], dim=1)
            index_qk = torch.cat([index_qk, found.indices + number * BLOCK_ROWS], dim=1)
            best = cosine_qk.topk(min(self.settings.neighbors, cosine_qk.shape[1]), dim=1)
            cosine_qk, index_qk = best.values, index_qk.gather(1, best.indices)
        shares_qkc = queries_qd.new_empty(*index_qk.shape, self.classes)
        for number in index_qk.div(BLOCK_ROWS, rounding_mode="floor").unique().tolist():
            inside = (index_qk >= number * BLOCK_ROWS) & (index_qk < (number + 1) * BLOCK_ROWS)
            shares_qkc[inside] = self._used(number)[1][index_qk[inside] - number * BLOCK_ROWS]
        return cosine_qk, shares_qkc

    @torch.no_grad()
    def probabilities(self, features_bdgf: Tensor) -> Tensor:
        """[b, c, g, f]: the class shares of each cell's neighbours, weighted.

        Raises
        ------
        ValueError: the bank is empty, or a feature isn't finite.
        """
        if len(self) == 0:
            raise ValueError("the bank is empty: no picture has a labelled pixel")
        _require_finite(features_bdgf)
        queries = F.normalize(features_bdgf.float(), dim=1).movedim(1, -1)
        answers = []
        for part_qd in queries.flatten(0, 2).split(QUERY_ROWS):
            cosine_qk, shares_qkc = self.nearest(part_qd)
            weights_qk = (cosine_qk / self.settings.temperature).softmax(dim=1)
            answers.append(torch.einsum("qk,qkc->qc", weights_qk, shares_qkc))
        return torch.cat(answers).unflatten(0, queries.shape[:3]).movedim(-1, 1)

    def predict(self, features_bdgf: Tensor, height: int, width: int) -> Tensor:
        """Label maps int64 [b, height, width]: probabilities resized bilinearly, then the best class."""
        resized = F.interpolate(
            self.probabilities(features_bdgf), size=(height, width), mode="bilinear", align_corners=False
        )
        return resized.argmax(dim=1)


def _require_finite(features: Tensor) -> None:
    if not bool(torch.isfinite(features).all()):
        raise ValueError("the features are not finite (NaN or infinity): is the checkpoint intact?")
